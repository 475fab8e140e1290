# SPDX-License-Identifier: Apache-2.0
"""version, info, doctor, events."""

from __future__ import annotations

import platform
import sys
from typing import Any
from urllib.parse import quote

import click
import msgspec

from .. import API_VERSION, __version__
from ..client.api import Query
from ..errors import HyperError, InvalidArgument, Unavailable
from ..model.host import Check, Info, Version
from ..model.moments import read_moment, write_moment
from ..model.specs import LogOptions
from ..model.status import Event
from ..model.units import format_binary
from .context import client
from .output import print_json, print_one, render

_FORMAT = click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
_FILTERS = ("type", "event", "container", "image", "network", "pod", "volume")
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@_FORMAT
def version(format_: str) -> int:
    """Show the versions of all parts."""
    mine = {"version": __version__, "apiVersion": API_VERSION, "python": platform.python_version()}
    daemon: Version | None = None
    error: HyperError | None = None
    try:
        daemon = client().call(Version, "GET", "/version")
    except HyperError as caught:
        error = caught
    both = {"client": mine, "server": msgspec.to_builtins(daemon)}
    print_one(both, format_, lambda: _print_versions(mine, both["server"]))
    if error:
        print(f"hyperctl: {error}", file=sys.stderr)
    return 1 if error else 0


def _print_versions(client: dict[str, Any], server: dict[str, Any] | None) -> None:
    for title, part in (("Client", client), ("Server", server)):
        if part:
            print(f"{title}:")
            for key, value in part.items():
                print(f"  {key + ':':<14}{value}")


@click.command("docker-host")
def docker_host() -> None:
    """Print where Docker's clients reach this daemon, for DOCKER_HOST.

    export DOCKER_HOST=$(hyperctl docker-host)
    """
    found = client().call(Info, "GET", "/info").docker_host
    if not found:
        raise Unavailable("hyperd does not serve Docker's clients", hint="set `docker = true` in its configuration")
    print(found)


@click.command()
@_FORMAT
def info(format_: str) -> None:
    """Show the daemon and its host."""
    found = client().call(Info, "GET", "/info")
    print_one(found, format_, lambda: _print_info(found))


def _print_info(found: Info) -> None:
    lines = {
        "Version": found.version,
        "Containers": f"{found.containers} ({found.running} running)",
        "Pods": found.pods,
        "Images": found.images,
        "Driver": found.driver,
        "Accelerator": f"{found.accelerator} ({found.accelerator_reason})",
        "Kernel version": found.kernel_version or "unknown: a kernel of your own",
        "Kernel config hash": found.kernel_config_hash or "unknown",
        "Kernel": found.kernel_path or "none",
        "Network": found.network,
        "Logging driver": _log_driver(found.log),
        "Docker host": found.docker_host or "not served",
        "CPUs": found.cpus,
        "Memory": format_binary(found.memory),
        "Root": found.root,
        "Audit log": found.audit or "off",
        "Rootless": str(found.rootless).lower(),
    }
    for key, value in lines.items():
        print(f"{key + ':':<20}{value}")
    for driver in found.drivers:
        state = "usable" if driver.usable else "not usable"
        print(f"{f'Driver {driver.name}:':<20}{driver.version or 'not installed'}, {state}: {driver.reason}")
        print(f"{'':<20}can {', '.join(driver.can)}")
    for other in found.architectures:
        state, hint = ("usable", "") if other.usable else ("not usable", f"; {other.hint}")
        print(f"{f'Images for {other.name}:':<20}{state}: {other.reason}{hint}")


def _log_driver(log: LogOptions) -> str:
    given = {"max-size": log.max_size, "max-file": log.max_files, **log.options}
    told = ", ".join(f"{k}={v}" for k, v in given.items() if v)
    return log.driver + (f" ({told})" if told else "")


@click.command()
@click.option("--probe", is_flag=True, help="Try anew whether a guest boots with KVM; takes 30 seconds at most.")
@click.option("--format", "format_", default="", metavar="json", help="How to print.")
@click.option(
    "--forget", metavar="NAME", help="Give up a record that cannot be read, and end its virtual machine; files stay."
)
@click.option("--jail", metavar="POD", help="What its hypervisor is kept from, seen from outside.")
def doctor(format_: str, forget: str | None, probe: bool, jail: str | None) -> int:
    """Check what this host has of what HyperContainer needs.

    The exit status is 1 when something that is needed is missing.
    """
    if forget:
        client().do("DELETE", f"/set-aside/{quote(forget, safe='')}")
        return 0
    query: Query = {name: value for name, value in (("probe", "1" if probe else ""), ("jail", jail)) if value}
    checks = client().call(list[Check], "GET", "/doctor", query)
    if format_ == "json":
        print_json(checks)
    else:
        for check in checks:
            # click drops colours where stdout is no terminal
            click.echo(f"{click.style(f'{check.status:<5}', fg=_COLOURS[check.status])} {check.name}: {check.found}")
            if check.hint:
                click.echo(f"      {check.hint}")
    return int(any(c.status == "fail" for c in checks))


@click.command()
@click.option("--since", help="Begin with the past: 2026-01-31T12:00:00Z, epoch seconds, or 10m for ten minutes ago.")
@click.option("--after", help="Begin after the event of this time: where an earlier call ended.")
@click.option("--until", is_flag=False, flag_value="0s", help="End at this time; now when none is given.")
@click.option(
    "-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE",
    help="Only those: type, event, container, image, network, pod, volume. Of one key any will do.",
)  # fmt: skip
@click.option("--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
def events(since: str | None, after: str | None, until: str | None, filters: tuple[str, ...], format_: str) -> None:
    """Print what happens, as it happens, and what has happened.

    Events outlive the daemon. No two have the same time: with --after and the
    time of the last one that you saw, none is missed and none comes twice.
    """
    tests = _filters(filters)
    # A past that begins nowhere begins with the first event that is kept.
    begin = since or ("0" if until and not after else None)
    query: Query = {name: write_moment(read_moment(text)) if text else "" for name, text in
                    (("since", begin), ("after", after), ("until", until))}  # fmt: skip
    for raw in client().lines("GET", "/events", query):
        event = msgspec.convert(raw, Event)
        if not all(any(_matches(event, key, value) for value in values) for key, values in tests.items()):
            continue
        if format_ == "json":
            print(msgspec.json.encode(event).decode(), flush=True)
        elif format_:
            print(render(format_, event), flush=True)
        else:
            notes = ", ".join(f"{k}={v}" for k, v in event.attributes.items())
            print(f"{event.time} {event.type} {event.action} {event.id} ({notes})", flush=True)


def _filters(given: tuple[str, ...]) -> dict[str, list[str]]:
    """:raise InvalidArgument: for one that is none."""
    found: dict[str, list[str]] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or key not in _FILTERS:
            raise InvalidArgument(
                f"invalid filter {text!r}", hint=f"use one of {', '.join(_FILTERS)}, such as type=container"
            )
        found.setdefault(key, []).append(value)
    return found


def _matches(event: Event, key: str, value: str) -> bool:
    name = event.attributes.get("name")
    match key:
        case "type":
            return event.type == value
        case "event":  # health_status has its outcome behind a colon
            return value in (event.action, event.action.partition(":")[0])
        case "image":
            return value in (event.id, event.attributes.get("image"), name)
    return event.type == key and value in (event.id, event.id[:12], name)
