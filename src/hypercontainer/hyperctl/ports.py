# SPDX-License-Identifier: Apache-2.0
"""ports and service: what of a pod's network can be changed while it runs."""

from __future__ import annotations

import re

import click

from ..client.api import pod_route
from ..errors import InvalidArgument
from ..model.pods import Service, ServiceBackend
from ..model.specs import PortMapping
from .context import client
from .options import parse_ports
from .output import show

_FORMAT = click.option("--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
_PUBLISH = click.option(
    "-p",
    "--publish",
    multiple=True,
    required=True,
    metavar="[IP:][HOST:]CONTAINER[/PROTOCOL]",
    help="A port or a range.",
)
_ADDRESS = re.compile(r"^(?:\[(?P<six>[^\]]+)\]|(?P<four>[^:\[\]]+)):(?P<port>\d+)(?:/(?P<protocol>tcp|udp))?\Z")


@click.group()
def ports() -> None:
    """List or change the published ports of a pod or container."""


def _show(found: list[PortMapping], format_: str) -> None:
    show(found, format_, ["HOST", "CONTAINER", "PROTOCOL"],
         lambda p: [f"{p.host_ip or '0.0.0.0'}:{p.host_port}", str(p.container_port), p.protocol])  # fmt: skip


@ports.command()
@click.argument("pod")
@_FORMAT
def ls(pod: str, format_: str = "") -> None:
    """List published ports."""
    _show(client().call(list[PortMapping], "GET", pod_route(pod, "/ports")), format_)


@ports.command()
@_PUBLISH
@click.argument("pod")
def add(pod: str, publish: tuple[str, ...]) -> None:
    """Publish further ports, at once when the pod runs."""
    _show(client().call(list[PortMapping], "POST", pod_route(pod, "/ports"), body=parse_ports(publish)), "")


@ports.command()
@_PUBLISH
@click.argument("pod")
def delete(pod: str, publish: tuple[str, ...]) -> None:
    """Publish ports no more."""
    _show(client().call(list[PortMapping], "DELETE", pod_route(pod, "/ports"), body=parse_ports(publish)), "")


# -- services -------------------------------------------------------------------------


@click.group()
def service() -> None:
    """List or change the services of a pod: addresses in it that several hosts stand behind."""


def _parse(text: str) -> tuple[str, int, str]:
    match = _ADDRESS.match(text)
    if not match or not 1 <= int(match["port"]) <= 65535:
        raise InvalidArgument(f"invalid address {text!r}", hint="write IP:PORT[/tcp|udp]; an IPv6 address in [ ]")
    return match["six"] or match["four"], int(match["port"]), match["protocol"] or "tcp"


def _service(address: str, hosts: tuple[str, ...]) -> Service:
    ip, port, protocol = _parse(address)
    backends = [ServiceBackend(host_ip=i, host_port=p) for i, p, _ in map(_parse, hosts)]
    return Service(service_ip=ip, service_port=port, protocol="udp" if protocol == "udp" else "tcp", hosts=backends)


def _show_services(found: list[Service], format_: str) -> None:
    show(
        found,
        format_,
        ["SERVICE", "PROTOCOL", "HOSTS"],
        lambda s: [
            f"{s.service_ip}:{s.service_port}",
            s.protocol,
            ", ".join(f"{h.host_ip}:{h.host_port}" for h in s.hosts),
        ],
    )


@service.command(name="ls")
@click.argument("pod")
@_FORMAT
def service_ls(pod: str, format_: str) -> None:
    """List services."""
    _show_services(client().call(list[Service], "GET", pod_route(pod, "/services")), format_)


@service.command(name="add")
@click.argument("pod")
@click.argument("address", metavar="IP:PORT[/PROTOCOL]")
@click.argument("hosts", nargs=-1, required=True, metavar="HOST:PORT...")
def service_add(pod: str, address: str, hosts: tuple[str, ...]) -> None:
    """Add a service; connections to it go to its hosts in turn."""
    _show_services(
        client().call(list[Service], "POST", pod_route(pod, "/services"), body=[_service(address, hosts)]), ""
    )


@service.command(name="update")
@click.argument("pod")
@click.argument("address", metavar="IP:PORT[/PROTOCOL]")
@click.argument("hosts", nargs=-1, required=True, metavar="HOST:PORT...")
def service_update(pod: str, address: str, hosts: tuple[str, ...]) -> None:
    """Give a service other hosts."""
    c, new = client(), _service(address, hosts)
    key = (new.service_ip, new.service_port, new.protocol)
    others = [
        s
        for s in c.call(list[Service], "GET", pod_route(pod, "/services"))
        if (s.service_ip, s.service_port, s.protocol) != key
    ]
    _show_services(c.call(list[Service], "PUT", pod_route(pod, "/services"), body=[*others, new]), "")


@service.command(name="rm")
@click.argument("pod")
@click.argument("address", metavar="IP:PORT[/PROTOCOL]")
def service_rm(pod: str, address: str) -> None:
    """Remove a service."""
    ip, port, protocol = _parse(address)
    client().do("DELETE", pod_route(pod, "/services"), {"address": ip, "port": port, "protocol": protocol})
