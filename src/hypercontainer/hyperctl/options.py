# SPDX-License-Identifier: Apache-2.0
"""The flags that run and create share, and what they mean."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast, get_args

import click

from ..errors import InvalidArgument
from ..model.devices import parse_device
from ..model.log_options import read_log_options
from ..model.ports import parse_exposed
from ..model.signals import RLIMITS
from ..model.specs import (
    LOG_DRIVERS,
    ContainerSpec,
    HealthCheck,
    LogOptions,
    Mount,
    PortMapping,
    Resources,
    RestartName,
    RestartPolicy,
    Ulimit,
)
from ..model.units import parse_duration, parse_size
from . import dockerflags, lifetime
from .environment import resolve
from .hostflags import DEVICE

_OPTIONS = [
    click.option("-i", "--interactive", is_flag=True, help="Keep stdin open."),
    click.option("-t", "--tty", is_flag=True, help="Give the process a terminal."),
    click.option(
        "-e",
        "--env",
        multiple=True,
        metavar="NAME[=VALUE]",
        help="Set an environment variable; without a value it is taken from here.",
    ),
    click.option("--env-file", multiple=True, type=click.Path(), help="Read environment variables from a file."),
    click.option("-w", "--workdir", default="", help="Working directory."),
    click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="User and group, by name or number."),
    click.option("--group-add", multiple=True, help="Join a further group."),
    click.option("-h", "--hostname", default="", help="Host name."),
    click.option("--domainname", default="", help="Domain of the host name."),
    click.option("--entrypoint", default=None, help="Program to run in place of the image's ENTRYPOINT."),
    click.option("--cpus", type=click.FloatRange(min=0), default=0.0, help="CPU time, in CPUs."),
    click.option("-m", "--memory", default="", help="Memory limit, such as 512m."),
    click.option("--size", default="", metavar="NAME", help="CPUs and memory by a name: see `hyperctl size ls`."),
    click.option("--pids-limit", type=int, default=0, help="Most processes at a time; -1 for no limit."),
    click.option("--read-only", is_flag=True, help="Mount the root file system read-only."),
    click.option("-l", "--label", multiple=True, metavar="NAME[=VALUE]", help="Set a label."),
    click.option("--label-file", multiple=True, type=click.Path(), help="Read labels from a file."),
    click.option("--annotation", multiple=True, metavar="NAME=VALUE", help="Note something in the record."),
    click.option("--ulimit", multiple=True, metavar="NAME=SOFT[:HARD]", help="Set a resource limit."),
    click.option("--sysctl", multiple=True, metavar="NAME=VALUE", help="Set a kernel parameter of the pod."),
    click.option("--cap-add", multiple=True, help="Add a capability, or ALL."),
    click.option("--cap-drop", multiple=True, help="Drop a capability, or ALL."),
    click.option(
        "--security-opt",
        multiple=True,
        metavar="OPTION",
        help="no-new-privileges: let no program gain privileges by set-user-ID; "
        "seccomp=unconfined: filter no system call; seccomp=FILE: filter by a profile of your own.",
    ),
    click.option(
        "--stop-signal", default="", help="Signal that asks the process to end [default: the image's, or TERM]."
    ),
    click.option(
        "--stop-timeout", type=click.IntRange(min=0), default=10, help="Seconds between that signal and KILL."
    ),
    click.option(
        "-p", "--publish", multiple=True, metavar="[IP:][HOST:]CONTAINER[/PROTOCOL]", help="Publish a port or a range."
    ),
    click.option(
        "-v",
        "--volume",
        multiple=True,
        metavar="[SOURCE:]PATH[:ro]",
        help="Mount a path of this host, or a named volume.",
    ),
    click.option("--mount", multiple=True, metavar="type=...,source=...,target=...", help="The same, in full."),
    click.option("--tmpfs", multiple=True, metavar="PATH[:size=SIZE]", help="Mount a file system in memory."),
    click.option("--shm-size", default="", help="Size of /dev/shm [default: 64m]."),
    click.option(
        "--restart",
        default="no",
        metavar="no|on-failure[:N]|always|unless-stopped",
        help="Start it again when it ends.",
    ),
    click.option("--health-cmd", default="", help="Command that tells whether the container is well."),
    click.option("--health-interval", default="", help="Time between checks [default: 30s]."),
    click.option("--health-timeout", default="", help="Longest time for one check [default: 30s]."),
    click.option(
        "--health-retries", type=click.IntRange(min=1), help="Failures in a row that make it unhealthy [default: 3]."
    ),
    click.option("--health-start-period", default="", help="Time in which failures do not count [default: 0s]."),
    click.option("--health-start-interval", default="", help="Time between checks in the start period [default: 5s]."),
    click.option("--no-healthcheck", is_flag=True, help="Ignore the image's check."),
    click.option(
        "--privileged",
        is_flag=True,
        help="All capabilities, and no path hidden: of its own virtual machine. What systemd needs as process 1.",
    ),
    DEVICE,
    click.option(
        "--driver",
        default="",
        metavar="NAME",
        help="Hypervisor of the virtual machine, or auto [default: the daemon's].",
    ),
    click.option(
        "--isolation",
        type=click.Choice(["default", "fresh"]),
        default="default",
        help="fresh: boot a virtual machine that shares nothing with others, instead of starting from a template.",
    ),
    click.option("--log-driver", type=click.Choice(LOG_DRIVERS), help="Where output is kept [default: the daemon's]."),
    click.option(
        "--log-opt",
        multiple=True,
        metavar="NAME=VALUE",
        help="Of the log driver: max-size, max-file, tag, syslog-address, ...",
    ),
    click.option("--pod", default="", metavar="POD", help="Join a pod instead of making one."),
    click.option(
        "--network",
        "--net",
        multiple=True,
        metavar="user[:host-loopback]|none|NAME|cni:NAME",
        help="Network of the pod; may be repeated.",
    ),
    click.option("--network-alias", multiple=True, help="A further name in its network."),
    click.option("--ip", default="", help="IPv4 address in its network."),
    click.option("--ip6", default="", help="IPv6 address in its network."),
    click.option("--mac-address", default="", help="MAC address of its NIC."),
    click.option("--dns", multiple=True, help="Name server, instead of the network's."),
    click.option("--dns-search", multiple=True, help="Search domain."),
    click.option("--dns-option", multiple=True, help="Option of resolv.conf."),
    click.option(
        "--add-host", multiple=True, metavar="NAME:IP", help="A line of /etc/hosts; `host-gateway` is this host."
    ),
    click.option("--allow", multiple=True, metavar="CIDR[:PORT]", help="The only destinations that it may reach."),
    click.option(
        "--allow-host",
        multiple=True,
        metavar="HOST[:PORT]",
        help="The only hosts that it may reach, by TLS or HTTP; *.NAME is all below NAME [ports: 80, 443].",
    ),
    click.option(
        "--inject-secret",
        multiple=True,
        metavar="NAME[=FILE]@HOST[:PORT][:HEADER]",
        help="Give $NAME, or a file's content, to a host in headers of HTTPS; inside $NAME is a placeholder.",
    ),
    click.option("--egress", type=click.Choice(["open", "none"]), help="All that it may reach, beside --allow-host."),
    click.option("--security-group", multiple=True, metavar="NAME", help="A security group that it is in."),
    click.option(
        "--ingress-rate", default="", metavar="RATE", help="Most that it may receive, such as 10m (bits per second)."
    ),
    click.option("--egress-rate", default="", metavar="RATE", help="Most that it may send."),
    *lifetime.OPTIONS,
    click.option(
        "--pull", type=click.Choice(["missing", "always", "never"]), default="missing", help="When to pull the image."
    ),
    click.option("--platform", default="", help="Platform of the image, such as linux/amd64."),
    click.option("--rm", is_flag=True, help="Remove the container when it ends."),
    click.option("--cidfile", type=click.Path(), help="Write the container's id to a file."),
    click.option("-q", "--quiet", is_flag=True, help="Show no progress of a pull."),
]


def container_options(command: Callable[..., Any], name: str = "Name of the container.") -> Callable[..., Any]:
    """All flags of a new container; `name` is --name's help, with none the flag is not there."""
    named = [click.option("--name", default="", help=name)] if name else []
    for option in reversed([*named, *_OPTIONS, *dockerflags.OPTIONS]):
        command = option(command)
    return command


def _read_lines(path: str, what: str) -> list[str]:
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise InvalidArgument(f"cannot read {what} {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise InvalidArgument(f"{what} {path} is not UTF-8 text") from None
    return [line.lstrip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def environment(env: tuple[str, ...], files: tuple[str, ...]) -> list[str]:
    """Files first, then flags; a bare name takes its value from here, or is left out."""
    return resolve([line for f in files for line in _read_lines(f, "env file")] + list(env))


def pairs(values: tuple[str, ...], what: str, *, need_value: bool) -> dict[str, str]:
    found = {}
    for value in values:
        name, equals, rest = value.partition("=")
        if not name or (need_value and not equals):
            raise InvalidArgument(f"invalid {what} {value!r}", hint="write NAME=VALUE")
        found[name] = rest
    return found


def parse_ulimit(text: str) -> Ulimit:
    """`nofile=1024:2048`, `core=-1`."""
    name, equals, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    try:
        parsed = Ulimit(name=name, soft=int(soft), hard=int(hard or soft))
    except ValueError:
        equals = ""
    if not equals or name not in RLIMITS:
        hint = (
            "write NAME=SOFT[:HARD], such as nofile=1024:2048" if name in RLIMITS else f"known are {', '.join(RLIMITS)}"
        )
        raise InvalidArgument(f"invalid ulimit {text!r}", hint=hint)
    return parsed


_SECURITY: dict[str, dict[str, Any]] = {
    "no-new-privileges": {"no_new_privileges": True},
    "no-new-privileges:true": {"no_new_privileges": True},
    "no-new-privileges=true": {"no_new_privileges": True},
    "no-new-privileges:false": {"no_new_privileges": False},
    "seccomp=unconfined": {"seccomp": "unconfined", "seccomp_profile": ""},
    "seccomp=builtin": {"seccomp": "default", "seccomp_profile": ""},
}


def _security(options: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a ContainerSpec that --security-opt sets; a later one counts."""
    out: dict[str, Any] = {}
    for option in options:
        out |= _SECURITY[option] if option in _SECURITY else dockerflags.security(option)
    return out


def parse_ports(publish: tuple[str, ...]) -> list[PortMapping]:
    from ..model.ports import parse_publish

    return [mapping for spec in publish for mapping in parse_publish(spec)]


def mounts_from(o: dict[str, Any]) -> list[Mount]:
    """Of -v, --mount and --tmpfs; a missing directory of -v is made, as Docker does."""
    from ..model.mounts import parse_mount, parse_tmpfs, parse_volume

    short = [parse_volume(v) for v in o["volume"]]
    for mount in short:
        if mount.type == "bind" and not os.path.lexists(mount.source):
            try:
                os.makedirs(mount.source, exist_ok=True)
            except OSError as error:
                raise InvalidArgument(
                    f"cannot make the directory {mount.source}: {error.strerror}", hint="make it yourself"
                ) from error
    return [*short, *(parse_mount(m) for m in o["mount"]), *(parse_tmpfs(t) for t in o["tmpfs"])]


def parse_restart(text: str) -> RestartPolicy:
    """`no`, `on-failure[:N]`, `always`, `unless-stopped`."""
    name, colon, count = text.partition(":")
    if name not in get_args(RestartName) or (colon and (name != "on-failure" or not count.isdecimal())):
        raise InvalidArgument(
            f"invalid restart policy {text!r}", hint="use no, on-failure[:N], always or unless-stopped"
        )
    return RestartPolicy(name=cast(RestartName, name), max_retries=int(count or 0))


_HEALTH_TIMES = ("interval", "timeout", "start_period", "start_interval")


def _health(o: dict[str, Any]) -> HealthCheck | None:
    """:raise InvalidArgument: a check and none, or times of one that is not given."""
    times = {k: o[f"health_{k}"] for k in _HEALTH_TIMES if o[f"health_{k}"]}
    given = [k for k in ("cmd", *_HEALTH_TIMES, "retries") if o[f"health_{k}"]]
    if given and o["no_healthcheck"]:
        raise InvalidArgument("--no-healthcheck conflicts with --health-* options", hint="leave one of them out")
    if given and not o["health_cmd"]:
        flag = given[0].replace("_", "-")
        raise InvalidArgument(
            f"--health-{flag}: the image's check is taken as it is, or not at all", hint="give --health-cmd, too"
        )
    if not given:
        return None
    asked: dict[str, Any] = {name: parse_duration(text) for name, text in times.items()}
    asked |= {"retries": o["health_retries"]} if o["health_retries"] else {}
    return HealthCheck(command=["/bin/sh", "-c", o["health_cmd"]], **asked)


def _log(o: dict[str, Any]) -> LogOptions:
    return read_log_options(o["log_driver"] or "", pairs(o["log_opt"], "log option", need_value=True))


def _resources(o: dict[str, Any]) -> Resources:
    memory = parse_size(o["memory"]) if o["memory"] else 0
    return Resources(cpus=dockerflags.cpus(o), memory=memory, pids=max(0, o["pids_limit"]))


def spec_from(image: str, command: tuple[str, ...], o: dict[str, Any]) -> ContainerSpec:
    """The request that the flags make.

    :raise InvalidArgument: naming the flag's value and what would be right.
    """
    from .netoptions import networking

    dockerflags.check(o)
    labels = [line for f in o["label_file"] for line in _read_lines(f, "label file")] + list(o["label"])
    return ContainerSpec(
        image=image,
        name=o["name"],
        command=list(command) or None,
        size=o["size"],
        entrypoint=None if o["entrypoint"] is None else [o["entrypoint"]],
        env=environment(o["env"], o["env_file"]),
        workdir=o["workdir"],
        user=o["user"],
        groups=list(o["group_add"]),
        hostname=o["hostname"],
        domainname=o["domainname"],
        tty=o["tty"],
        stdin=o["interactive"],
        read_only=o["read_only"],
        resources=_resources(o),
        labels=pairs(tuple(labels), "label", need_value=False),
        annotations=pairs(o["annotation"], "annotation", need_value=True),
        ulimits=[parse_ulimit(u) for u in o["ulimit"]],
        sysctls=pairs(o["sysctl"], "sysctl", need_value=True),
        cap_add=list(o["cap_add"]),
        cap_drop=list(o["cap_drop"]),
        **_security(o["security_opt"]),
        ports=parse_ports(o["publish"]),
        expose=[name for text in o["expose"] for name in parse_exposed(text)],
        publish_all=o["publish_all"],
        **networking(o),
        **lifetime.lifetime_of(o),
        stop_signal=o["stop_signal"],
        stop_timeout=o["stop_timeout"],
        auto_remove=o["rm"],
        driver=o["driver"],
        isolation=o["isolation"],
        pull=o["pull"],
        pod=o["pod"],
        mounts=mounts_from(o),
        volumes_from=list(o["volumes_from"]),
        links=list(o["link"]),
        shm_size=parse_size(o["shm_size"]) if o["shm_size"] else 0,
        devices=[parse_device(d) for d in o["device"]],
        restart=parse_restart(o["restart"]),
        health=_health(o),
        no_health=o["no_healthcheck"],
        privileged=o["privileged"],
        pid=dockerflags.pid_mode(o["pid"], o["pod"]),
        run_init=o["init"],
        log=_log(o),
        platform=o["platform"],
    )
