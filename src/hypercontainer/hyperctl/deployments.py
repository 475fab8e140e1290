# SPDX-License-Identifier: Apache-2.0
"""deployment: replicas of a container behind one address."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable
from functools import partial
from typing import Any
from urllib.parse import quote

import click
from click.core import ParameterSource
from msgspec.structs import replace

from ..client.api import Client
from ..errors import DeadlineExceeded, HyperError, InvalidArgument
from ..model.deployments import BalancedPort, DeploymentInfo, DeploymentRequest, DeploymentUpdate, UpdatePolicy
from ..model.network import NetworkRequest
from ..model.specs import ContainerSpec
from ..model.units import parse_duration
from .context import client, for_each
from .dockerflags import DockerCommand
from .options import container_options, spec_from
from .output import show, show_details
from .pulling import fetch_for
from .standard import print_made

_SETTINGS = {"ignore_unknown_options": False, "allow_interspersed_args": False, "help_option_names": ["--help"]}
_LOOK = 0.3  # seconds between two looks at how far it is
_WAIT = click.option("-d", "--detach", is_flag=True, help="Do not wait until all replicas are ready.")
_LIMIT = click.option("--wait-limit", default="10m", show_default=True, metavar="DURATION", help="Wait no longer.")
_POLICY = (
    click.option("--update-parallelism", type=click.IntRange(1, 200), help="Replicas replaced at a time [default: 1]."),
    click.option("--update-delay", metavar="DURATION", help="Between two batches [default: 0s]."),
    click.option("--update-order", type=click.Choice(["start-first", "stop-first"]), help="[default: start-first]"),
    click.option("--update-failure-action", type=click.Choice(["pause", "rollback"]), help="[default: pause]"),
    click.option("--update-monitor", metavar="DURATION", help="A new one is ready for so long first [default: 5s]."),
    click.option("--update-limit", metavar="DURATION", help="A new one is ready within this time [default: 2m]."),
    click.option("--drain", metavar="DURATION", help="An old one's connections have so long to end [default: 2s]."),
)


@click.group()
def deployment() -> None:
    """Replicas of a container behind one address, replaced one after the other by updates."""


def deployment_route(name: str, rest: str = "") -> str:
    """Of a deployment, by its name or id."""
    return f"/deployments/{quote(name, safe='')}{rest}"


def _policy(command: Any) -> Any:
    for option in reversed(_POLICY):
        command = option(command)
    return command


@deployment.command(cls=DockerCommand, context_settings=_SETTINGS)
@partial(container_options, name="Name of the deployment.")
@click.option("--replicas", type=click.IntRange(0, 200), default=1, show_default=True)
@click.option("--port", multiple=True, metavar="PORT[:TARGET][/PROTOCOL]", help="A port of its address, not published.")
@click.option("--sticky", is_flag=True, help="Connections of one client go to one replica.")
@_policy
@click.option("--detach", is_flag=True, help="Do not wait until all replicas are ready.")
@_LIMIT
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def create(
    image: str, command: tuple[str, ...], replicas: int, port: tuple[str, ...], sticky: bool, detach: bool,
    wait_limit: str, **options: Any,
) -> int:  # fmt: skip
    """Make a deployment, and wait until its replicas are ready.

    Its name is that of --name, by which pods of its network (--network) find its address; -p HOST:PORT publishes a
    port. The other flags of `run` say what its containers are.

        hyperctl deployment create --name web --replicas 3 -p 8080:80 nginx
    """
    if not options["name"]:
        raise InvalidArgument("a deployment needs a name", hint="give --name NAME")
    c, name, policy = client(), options["name"], _taken(options)
    spec = _container(c, image, command, options)
    network, ports = _network(spec), [_published(p) for p in spec.ports] + [_port(text) for text in port]
    request = DeploymentRequest(
        name=name, container=replace(spec, ports=[], network="", networks=[]), replicas=replicas, network=network,
        ports=ports, sticky=sticky, update=UpdatePolicy(**policy),
    )  # fmt: skip
    limit = parse_duration(wait_limit)
    print_made(c.call(DeploymentInfo, "POST", "/deployments", body=request).id, "the deployment")
    steady = 0.0 if spec.health else request.update.monitor  # without a check, who has just begun is ready
    return 0 if detach else _wait(c, name, limit, steady)


def _network(spec: ContainerSpec) -> str:
    """:raise InvalidArgument: there are several, or one with addresses."""
    if not spec.networks:
        return spec.network
    if len(spec.networks) > 1 or spec.networks[0] != NetworkRequest(name=spec.networks[0].name):
        raise InvalidArgument("a deployment is in one network, which gives its addresses", hint="write --network NAME")
    return spec.networks[0].name


def _container(c: Client, image: str, command: tuple[str, ...], options: dict[str, Any]) -> ContainerSpec:
    spec = spec_from(image, command, {**options, "name": ""})
    fetch_for(c, spec, quiet=options["quiet"])
    return spec


def _taken(options: dict[str, Any]) -> dict[str, Any]:
    """The flags of updates out of the options, as the policy has them; without those that were not given."""
    found = {
        "parallelism": options.pop("update_parallelism"), "order": options.pop("update_order"),
        "on_failure": options.pop("update_failure_action"),
    }  # fmt: skip
    for name in ("update_delay", "update_monitor", "update_limit", "drain"):
        text = options.pop(name)
        found[name.removeprefix("update_")] = None if text is None else parse_duration(text)
    return {name: value for name, value in found.items() if value is not None}


def _published(p: Any) -> BalancedPort:
    if not p.host_port or p.host_ip not in ("", "0.0.0.0", "::"):
        raise InvalidArgument(
            "a deployment's port is published on all addresses of the host", hint="write -p HOSTPORT:PORT"
        )
    return BalancedPort(port=p.container_port, target=p.container_port, protocol=p.protocol, host_port=p.host_port)


def _port(text: str) -> BalancedPort:
    numbers, _, protocol = text.partition("/")
    first, _, target = numbers.partition(":")
    valid = all(n.isdecimal() and 0 < int(n) < 65536 for n in (first, target or first))
    if not valid or protocol not in ("", "tcp", "udp"):
        raise InvalidArgument(f"invalid port {text!r}", hint="write 80, 80:8080 or 53/udp")
    return BalancedPort(port=int(first), target=int(target or first), protocol="udp" if protocol == "udp" else "tcp")


def _wait(c: Client, name: str, limit: float, steady: float = 0.0) -> int:
    """Until it is as it is to be, and that for `steady` seconds, with a word of how far it is.

    :raise HyperError: it will not be.
    """
    end, said, since = time.monotonic() + limit, "", math.inf
    while True:
        found = c.call(DeploymentInfo, "GET", deployment_route(name))
        new = sum(m.version == found.version and m.state == "ready" for m in found.members)
        words = f"{name}: {new} of {found.replicas} ready"
        if words != said and sys.stderr.isatty():
            print(f"\r{words}\x1b[K", end="", file=sys.stderr, flush=True)
        said = words
        now = time.monotonic()
        since = min(since, now) if found.state == "complete" else math.inf
        if now - since >= steady or found.state == "paused" or now > end:
            break
        time.sleep(_LOOK)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if found.state == "complete":
        if found.message.startswith("rolled back"):
            raise HyperError(f"the update of {name} failed, and was {found.message}", hint="see `hyperctl logs`")
        return 0
    message = found.message or next((f"{m.name}: {m.message}" for m in found.members if m.message), "")
    why = f": {message}" if message else ""
    if found.state == "paused":
        raise HyperError(f"the update of {name} has failed{why}", hint=f"`hyperctl deployment rollback {name}`")
    raise DeadlineExceeded(f"{said} after {limit:g} s{why}", hint=f"see `hyperctl deployment ps {name}`")


@deployment.command(name="ls")
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
@click.option("-f", "--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
def list_(quiet: bool, format_: str) -> None:
    """List deployments."""
    found = client().call(list[DeploymentInfo], "GET", "/deployments")
    if quiet:
        for d in found:
            print(d.name)
        return
    show(
        found, format_, ["NAME", "READY", "IMAGE", "ADDRESS", "PORTS", "STATE"],
        lambda d: [
            d.name, f"{d.ready}/{d.replicas}", d.container.image, d.address,
            ", ".join(map(_written, d.ports)), d.state + (f": {d.message}" if d.message else ""),
        ],
    )  # fmt: skip


deployment.add_command(list_, "list")


def _written(p: BalancedPort) -> str:
    target = f"->{p.target}" if p.target != p.port else ""
    return f"{f'{p.host_port}:' if p.host_port else ''}{p.port}{target}/{p.protocol}"


@deployment.command()
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
@click.argument("name", nargs=-1, required=True)
def inspect(name: tuple[str, ...], format_: str) -> None:
    """Show all about deployments, as JSON."""
    c = client()
    show_details([c.call(DeploymentInfo, "GET", deployment_route(each)) for each in name], format_)


@deployment.command()
@click.option("-f", "--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
@click.argument("name")
def ps(name: str, format_: str) -> None:
    """List the replicas of a deployment; `hyperctl logs REPLICA` has the output of one."""
    found = client().call(DeploymentInfo, "GET", deployment_route(name))
    show(
        found.members, format_, ["REPLICA", "VERSION", "STATE", "ADDRESS"],
        lambda m: [m.name, str(m.version), m.state + (f": {m.message}" if m.message else ""), m.ip],
    )  # fmt: skip


@deployment.command()
@_WAIT
@_LIMIT
@click.argument("name")
@click.argument("replicas", type=click.IntRange(0, 200))
def scale(name: str, replicas: int, detach: bool, wait_limit: str) -> int:
    """Have so many replicas."""
    c, limit = client(), parse_duration(wait_limit)
    c.call(DeploymentInfo, "POST", deployment_route(name, "/update"), body=DeploymentUpdate(replicas=replicas))
    return 0 if detach else _wait(c, name, limit)


class _Update(DockerCommand):
    """Flags may come after the deployment's name, too; those after the image are its command's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-"):
            flags, rest = self.split(args[1:])
            args = [*flags, args[0], *rest]
        return super().parse_args(ctx, args)


@deployment.command(cls=_Update, context_settings=_SETTINGS)
@partial(container_options, name="")
@_policy
@click.option("--detach", is_flag=True, help="Do not wait until all replicas are replaced.")
@_LIMIT
@click.argument("deployment_name", metavar="DEPLOYMENT")
@click.argument("image", required=False)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def update(
    deployment_name: str, image: str | None, command: tuple[str, ...], detach: bool, wait_limit: str, **options: Any
) -> int:
    """Replace the replicas by those of another IMAGE, COMMAND and flags, all of which are said anew.

    Without an IMAGE only the flags of updates (--update-..., --drain) are changed.
    """
    c, policy, limit = client(), _taken(options), parse_duration(wait_limit)
    if not image:
        _refuse_given(options)
    found = c.call(DeploymentInfo, "GET", deployment_route(deployment_name))
    wanted = DeploymentUpdate(update=replace(found.update, **policy))
    if image:
        wanted = replace(wanted, container=_container(c, image, command, options))
    c.call(DeploymentInfo, "POST", deployment_route(deployment_name, "/update"), body=wanted)
    return 0 if detach else _wait(c, deployment_name, limit)


def _refuse_given(options: Iterable[str]) -> None:
    """:raise InvalidArgument: one of these was given."""
    context = click.get_current_context()
    for param in context.command.params:
        if param.name in options and context.get_parameter_source(param.name) is ParameterSource.COMMANDLINE:
            raise InvalidArgument(
                f"{max(param.opts, key=len)} says what a container is, which is said as a whole",
                hint="write the image, its command and all flags again",
            )


@deployment.command()
@_WAIT
@_LIMIT
@click.argument("name")
def rollback(name: str, detach: bool, wait_limit: str) -> int:
    """Replace the replicas by what they were before the last update."""
    c, limit = client(), parse_duration(wait_limit)
    c.call(DeploymentInfo, "POST", deployment_route(name, "/rollback"))
    return 0 if detach else _wait(c, name, limit)


@deployment.command()
@click.argument("name", nargs=-1, required=True)
def rm(name: tuple[str, ...]) -> int:
    """Remove deployments, with their replicas."""
    c = client()
    return for_each(name, lambda each: c.do("DELETE", deployment_route(each)))
