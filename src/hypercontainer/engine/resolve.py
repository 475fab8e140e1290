# SPDX-License-Identifier: Apache-2.0
"""A request and an image's configuration become a process and a guest container."""

from __future__ import annotations

import math
import os
import posixpath
import re
from typing import Any

from ..errors import InvalidArgument, NotFound
from ..images.disk import FSTYPE as IMAGE_FSTYPE
from ..model.base import encode
from ..model.signals import RLIMITS, UNLIMITED, capability_mask, parse_signal
from ..model.specs import GUEST_OVERHEAD, MEMORY_DEFAULT, MEMORY_MIN, MIB, PIDS_MAX, ContainerSpec, ExecSpec, Ulimit
from ..model.status import Container, Pod, Process
from ..model.units import format_binary
from ..protocol.constants import BOUND_ROOT, Seccomp
from ..protocol.messages import GuestContainer, GuestFile, GuestHook, GuestMount, GuestProcess
from .environment import user_of
from .filters import capabilities_of
from .log_sinks import choose

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What a container without a limit leaves to them. It is limited all the same: a
# machine that runs out as a whole may thrash for minutes before it kills.
GUEST_RESERVE = 40 * MIB
_LOG_FILES = 1000  # of one log: all are renamed when another is begun
# What a pod's machine has more for each further container without a limit.
MEMORY_FURTHER = 64 * MIB
_DOMAIN = "kernel.domainname"  # what getdomainname(2) tells
_LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_HOST = _LABEL.replace("0-9", "0-9_")  # podman's names of pods, which are host names, have them
_HOSTNAME = re.compile(rf"^{_LABEL}(\.{_LABEL})*\Z")
_SYSCTL = re.compile(r"^[a-z0-9_]+([./][a-zA-Z0-9_-]+)+\Z")
# https://github.com/moby/moby/blob/master/oci/defaults.go
MASKED = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def validate(spec: ContainerSpec, *, host_cpus: int | None = None, host_memory: int | None = None) -> None:
    """Everything about a request that needs no image.

    :raise InvalidArgument: with what is wrong and what would be right. :raise Unsupported: no such log on this host.
    """
    encode(spec)
    cpus = host_cpus or os.cpu_count() or 1
    memory = host_memory or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    r = spec.resources
    if r.memory and r.memory < MEMORY_MIN:
        raise InvalidArgument(
            f"memory limit {format_binary(r.memory)} is too small", hint=f"give at least {format_binary(MEMORY_MIN)}"
        )
    if r.memory > memory:
        raise InvalidArgument(
            f"memory limit {format_binary(r.memory)} is more than this host's {format_binary(memory)}", hint="give less"
        )
    if r.cpus > cpus:
        raise InvalidArgument(f"{r.cpus:g} CPUs are more than this host's {cpus}", hint=f"give at most {cpus}")
    if r.cpus and r.cpus < 0.01:
        raise InvalidArgument(f"{r.cpus:g} CPUs are too few", hint="give at least 0.01")
    check_hostname(spec.hostname)
    if spec.domainname and (len(spec.domainname) > 63 or not _HOSTNAME.match(spec.domainname)):
        raise InvalidArgument(f"invalid domain name {spec.domainname!r}", hint="write it as example.org")
    choose.check(spec.log)
    for entry in spec.env:
        if entry.startswith("=") or "\0" in entry:
            raise InvalidArgument(f"invalid environment variable {entry!r}", hint="write NAME=value")
    for limit in spec.ulimits:
        _check_ulimit(limit)
    for name in spec.sysctls:
        if not _SYSCTL.match(name):
            raise InvalidArgument(f"invalid sysctl {name!r}", hint="write it as net.core.somaxconn=1024")
    if spec.workdir and not spec.workdir.startswith("/"):
        raise InvalidArgument(f"working directory {spec.workdir!r} is not absolute", hint="begin it with /")
    capability_mask(spec.cap_add, spec.cap_drop)
    capability_mask(spec.cap_ambient, ["ALL"])
    _check_mounts(spec)
    _check_root(spec)
    if spec.log.max_files > _LOG_FILES:
        raise InvalidArgument(f"a log of {spec.log.max_files} files has too many", hint=f"give {_LOG_FILES} at most")
    for check in (spec.health, spec.liveness):
        if check and sum(x is not None for x in (check.command, check.http, check.tcp)) != 1:
            raise InvalidArgument("a health check needs one of command, http and tcp", hint="give exactly one")
    if spec.auto_remove and spec.restart.name != "no":
        raise InvalidArgument(
            "a container cannot both be removed and be restarted when it ends", hint="leave out --rm or --restart"
        )
    if spec.stop_signal:
        parse_signal(spec.stop_signal)


def _check_root(spec: ContainerSpec) -> None:
    if not spec.rootfs:
        return
    if not os.path.isabs(spec.rootfs) or os.path.realpath(spec.rootfs) == "/":
        raise InvalidArgument(f"the root directory {spec.rootfs!r} is no path below /", hint="write it from / on")
    if not os.path.isdir(spec.rootfs):
        raise NotFound(f"the root directory {spec.rootfs} does not exist", hint="create it, or correct the path")
    if spec.image or spec.base or spec.platform:
        raise InvalidArgument("a container has an image or a root directory, not both", hint="leave one of them out")


def check_hostname(name: str) -> None:
    """:raise InvalidArgument: when it is malformed; "" is the daemon's choice."""
    if name and (len(name) > 63 or not re.match(rf"{_HOST}(\.{_HOST})*\Z", name)):
        raise InvalidArgument(f"invalid host name {name!r}", hint="use letters, digits, '-' and '_', at most 63")


def _check_mounts(spec: ContainerSpec) -> None:
    seen: set[str] = set()
    for target in [
        *(m.target for m in spec.mounts),
        *(s.target for s in spec.secrets),
        *(f.target for f in spec.files),
    ]:
        clean = posixpath.normpath(target)
        if not target.startswith("/") or clean == "/" or ".." in target.split("/"):
            raise InvalidArgument(
                f"invalid path in the container {target!r}", hint="give an absolute path below /, without .."
            )
        if clean in seen:
            raise InvalidArgument(f"two mounts or files at {target}", hint="leave one out")
        seen.add(clean)
    for m in spec.mounts:
        if m.sub_path.startswith("/") or ".." in m.sub_path.split("/"):
            raise InvalidArgument(f"sub-path {m.sub_path!r} leaves its volume", hint="give a relative path without ..")


def _check_ulimit(limit: Ulimit) -> None:
    if limit.name not in RLIMITS:
        raise InvalidArgument(f"unknown ulimit {limit.name!r}", hint=f"known are {', '.join(RLIMITS)}")
    if limit.soft != -1 and limit.hard != -1 and limit.soft > limit.hard:
        raise InvalidArgument(f"ulimit {limit.name}: soft limit {limit.soft} is above hard limit {limit.hard}")


def process_of(spec: ContainerSpec, config: dict[str, Any], hostname: str) -> Process:
    """Docker's rules of ENTRYPOINT, CMD, ENV, WORKDIR, USER and STOPSIGNAL.

    :raise InvalidArgument: when neither request nor image names a command.
    """
    if spec.entrypoint is not None:
        entrypoint = [a for a in spec.entrypoint if a] if spec.entrypoint == [""] else spec.entrypoint
        command = spec.command or []
    else:
        entrypoint = config.get("Entrypoint") or []
        command = spec.command or config.get("Cmd") or []
    args = [*entrypoint, *command]
    if not args:
        where = "a root directory" if spec.rootfs else f"image {spec.image}"
        raise InvalidArgument(f"no command specified, and {where} has none", hint="give one after the image's name")
    env: dict[str, str] = {}
    if not spec.rootfs:  # else who made that says all of it
        env = {"PATH": DEFAULT_PATH.partition("=")[2], "HOSTNAME": hostname, **({"TERM": "xterm"} if spec.tty else {})}
    for entry in [*(config.get("Env") or []), *spec.env]:
        name, _, value = entry.partition("=")
        env[name] = value
    return Process(
        args=args,
        env=[f"{k}={v}" for k, v in env.items()],
        cwd=spec.workdir or config.get("WorkingDir") or "/",
        user=user_of(spec, config.get("User") or ""),
        stop_signal=parse_signal(spec.stop_signal or config.get("StopSignal") or "TERM"),
    )


def rehearsal_of(config: dict[str, Any]) -> GuestProcess | None:
    """The program that an image names, for a rehearsal; nothing of any container's own goes into it."""
    try:
        process = process_of(ContainerSpec(image=""), config, "factory")
    except InvalidArgument:
        return None
    return GuestProcess(args=tuple(process.args), env=tuple(process.env), cwd=process.cwd, user=process.user,
                        capabilities=capability_mask([], []), seccomp=Seccomp.DEFAULT, rehearsal=True,
                        own_pids=True)  # fmt: skip


def machine_size(specs: list[ContainerSpec], *, vcpus: int = 0, memory: int = 0) -> tuple[int, int]:
    """Virtual CPUs and bytes of memory of a pod's machine; 0 is what its containers need.

    A container with a limit gets all of it: the guest's own share comes on
    top. Those without share what one of them would get, and a little more.
    """
    wanted = math.ceil(sum(s.resources.cpus for s in specs))
    vcpus = vcpus or min(max(wanted, 1), os.cpu_count() or 1)
    if not memory:
        limited = [s.resources.memory for s in specs if s.resources.memory]
        free = len(specs) - len(limited)
        memory = sum(limited) + (MEMORY_DEFAULT + (free - 1) * MEMORY_FURTHER if free else GUEST_OVERHEAD)
        if not specs:
            memory = MEMORY_DEFAULT
    return vcpus, -(-memory // MIB) * MIB


def memory_max(spec: ContainerSpec, machine_memory: int) -> int:
    """Bytes that its control group may use: without a limit of its own all that the guest can spare."""
    return spec.resources.memory or machine_memory - GUEST_RESERVE


def memory_spare(specs: list[ContainerSpec], machine_memory: int) -> int:
    """Bytes of a machine's memory that these containers, all of it, may not use; 0 where one of them has no limit."""
    if not specs or not all(s.resources.memory for s in specs):
        return 0
    return max(0, machine_memory - GUEST_RESERVE - sum(s.resources.memory for s in specs))


def cpu_max(spec: ContainerSpec) -> int:
    """Microseconds per 100 ms that its control group may use; 0 is no limit."""
    return int(spec.resources.cpus * 100_000)


def cpus_wanted(specs: list[ContainerSpec], vcpus: int) -> float:
    """Processors that these containers of one machine may use together; 0: all of its."""
    if not specs or not all(s.resources.cpus for s in specs):
        return 0.0
    return min(sum(s.resources.cpus for s in specs), vcpus)


def check_host(vcpus: int, memory: int) -> None:
    """:raise InvalidArgument: when this host has less."""
    host_cpus, host_memory = os.cpu_count() or 1, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if memory > host_memory:
        raise InvalidArgument(
            f"the pod's {format_binary(memory)} of memory are more than this host's {format_binary(host_memory)}",
            hint="give it and its containers less",
        )
    if vcpus > host_cpus:
        raise InvalidArgument(
            f"the pod's {vcpus} CPUs are more than this host's {host_cpus}", hint=f"give at most {host_cpus}"
        )


OWN_FILES = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/machine-id")  # that every container gets


def guest_container(
    container: Container, machine_memory: int, image_disk: str, scratch: str, mounts: tuple[GuestMount, ...],
    files: tuple[GuestFile, ...], prepared: str = "",
) -> GuestContainer:  # fmt: skip
    """`machine_memory` is the pod's, in bytes; disks are serial numbers, or `image_disk` is the place of its root
    directory; `prepared` is one of `factory.clones`.
    """
    spec = container.spec
    return GuestContainer(
        id=container.id[:12],
        image_disk=image_disk,
        image_fstype=BOUND_ROOT if spec.rootfs else IMAGE_FSTYPE,
        scratch_disk=scratch,
        read_only=spec.read_only,
        mounts=mounts,
        files=files,
        sysctls=tuple({**({_DOMAIN: spec.domainname} if spec.domainname else {}), **spec.sysctls}.items()),
        masked_paths=_hidden(spec, spec.masked_paths, MASKED),
        readonly_paths=_hidden(spec, spec.readonly_paths, READONLY),
        memory_max=memory_max(spec, machine_memory),
        cpu_max=cpu_max(spec),
        pids_max=min(spec.resources.pids, PIDS_MAX),
        prepared=prepared,
        devices=spec.privileged,
    )


def _hidden(spec: ContainerSpec, given: list[str] | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    if given is not None:
        return tuple(given)
    return () if spec.privileged else usual


def bare_container(
    id_: str, machine_memory: int, image_disk: str, scratch: str, files: tuple[GuestFile, ...]
) -> GuestContainer:
    """One that asks for nothing."""
    return GuestContainer(
        id=id_,
        image_disk=image_disk,
        image_fstype=IMAGE_FSTYPE,
        scratch_disk=scratch,
        files=files,
        masked_paths=MASKED,
        readonly_paths=READONLY,
        memory_max=machine_memory - GUEST_RESERVE,
    )


def has_own_pids(pod: Pod, container: Container) -> bool:
    """Whether the container's main process is process 1 of a PID namespace of its own."""
    mode = container.spec.pid or ("container" if pod.implicit else pod.spec.pid)
    return mode == "container"


def pids_of(spec: ContainerSpec) -> str:
    """The container in whose PID namespace its main process is; "" for none."""
    return spec.pid.partition(":")[2]


def main_process(pod: Pod, container: Container, size: tuple[int, int]) -> GuestProcess:
    """The container's main process; `size` is its terminal's rows and columns."""
    spec, process = container.spec, container.process
    size = size if any(size) else spec.console_size
    return GuestProcess(
        args=tuple(process.args),
        container=container.id[:12],
        env=tuple(process.env),
        cwd=process.cwd,
        user=process.user,
        groups=tuple(spec.groups),
        only_groups=spec.only_groups,
        tty=spec.tty,
        rows=size[0],
        columns=size[1],
        stdin=spec.stdin,
        capabilities=capabilities_of(spec),
        ambient=capability_mask(spec.cap_ambient, ["ALL"]),
        no_new_privs=spec.no_new_privileges,
        seccomp=_seccomp(spec, privileged=spec.privileged),
        filter=process.filter,
        filter_flags=process.filter_flags,
        rlimits=_rlimits(spec.ulimits),
        main=True,
        own_pids=has_own_pids(pod, container),
        pids_of=pids_of(spec)[:12],
        init=spec.run_init,
        hooks=tuple(
            GuestHook(h.path, tuple(h.args or [h.path]), tuple(h.env), h.input, h.timeout) for h in spec.start_hooks
        ),
    )


def exec_process(container: Container, spec: ExecSpec, size: tuple[int, int]) -> GuestProcess:
    """A further process, with the main one's environment."""
    base = container.process
    env = {e.partition("=")[0]: e.partition("=")[2] for e in [*base.env, *spec.env]}
    if spec.tty:
        env.setdefault("TERM", "xterm")
    return GuestProcess(
        args=tuple(spec.command),
        container=container.id[:12],
        env=tuple(f"{k}={v}" for k, v in env.items()),
        cwd=spec.workdir or base.cwd,
        user=spec.user or base.user,
        groups=tuple(_exec_groups(container, spec)),
        only_groups=container.spec.only_groups and not spec.user,
        tty=spec.tty,
        rows=size[0],
        columns=size[1],
        stdin=spec.stdin,
        no_new_privs=spec.no_new_privileges or (container.spec.no_new_privileges and not spec.privileged),
        capabilities=_exec_capabilities(container, spec),
        ambient=capability_mask(container.spec.cap_ambient if spec.ambient is None else spec.ambient, ["ALL"]),
        seccomp=_seccomp(container.spec, privileged=spec.privileged or container.spec.privileged),
        filter=b"" if spec.privileged else base.filter,
        filter_flags=0 if spec.privileged else base.filter_flags,
        rlimits=_rlimits(container.spec.ulimits),
    )


def _exec_groups(container: Container, spec: ExecSpec) -> list[str]:
    if spec.groups is not None:
        return spec.groups
    return [] if spec.user else container.spec.groups


def _exec_capabilities(container: Container, spec: ExecSpec) -> int | None:
    """None: all."""
    if spec.capabilities is not None:
        return capability_mask(spec.capabilities, ["ALL"])
    return None if spec.privileged else capabilities_of(container.spec)


def _seccomp(spec: ContainerSpec, *, privileged: bool) -> Seccomp:
    return Seccomp.UNCONFINED if privileged or spec.seccomp == "unconfined" else Seccomp.DEFAULT


def _rlimits(limits: list[Ulimit]) -> tuple[tuple[int, int, int], ...]:
    def value(number: int) -> int:
        return UNLIMITED if number == -1 else number

    return tuple((RLIMITS[u.name], value(u.soft), value(u.hard)) for u in limits)
