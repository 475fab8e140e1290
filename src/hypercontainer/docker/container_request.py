# SPDX-License-Identifier: Apache-2.0
"""A request of Docker's for a container, as the engine's."""

from __future__ import annotations

from typing import Any, TypeVar, cast, get_args

import msgspec

from ..errors import InvalidArgument, Unsupported
from ..model.devices import parse_device
from ..model.lifetimes import of_labels
from ..model.log_options import read_log_options
from ..model.ports import parse_exposed, parse_publish
from ..model.sentences import explain
from ..model.specs import (
    ContainerSpec,
    HealthCheck,
    LogOptions,
    PortMapping,
    Resources,
    RestartName,
    RestartPolicy,
    Ulimit,
)
from ..sys.documents import UNREADABLE
from . import container_fields as fields
from .container_bodies import Create, Healthcheck, HostConfig, Limits, PortBinding, Restart, Words
from .container_mounts import mounts_of
from .container_networking import networking

T = TypeVar("T")
_NANO = 1_000_000_000
_PERIOD = 100_000  # microseconds; Docker's default of CpuPeriod
_NO_EFFECT = ("apparmor=unconfined", "label=disable")  # there is none of them in the guest
_SECURITY: dict[str, dict[str, Any]] = {
    "no-new-privileges": {"no_new_privileges": True},
    "no-new-privileges=true": {"no_new_privileges": True},
    "no-new-privileges=false": {"no_new_privileges": False},
    "seccomp=unconfined": {"seccomp": "unconfined", "seccomp_profile": ""},
    "seccomp=builtin": {"seccomp": "default", "seccomp_profile": ""},
    **{option: {} for option in _NO_EFFECT},
}


_DEPTH_MAX = 32


def without_nulls(value: Any, depth: int = 0) -> Any:
    """As Go reads null: the field is not there.

    :raise InvalidArgument: it is deeper than any document that there is.
    """
    if depth > _DEPTH_MAX:
        raise InvalidArgument("invalid JSON: it is too deep")
    if isinstance(value, dict):
        return {k: without_nulls(v, depth + 1) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        for each in value:
            without_nulls(each, depth + 1)
    return value


def converted(given: dict[str, Any], type_: type[T]) -> T:
    """:raise InvalidArgument: a field has another type."""
    try:
        return msgspec.convert(given, type_)
    except UNREADABLE as error:
        raise InvalidArgument(f"invalid JSON: {explain(error, given, type_)}") from error


def read_create(raw: dict[str, Any]) -> Create:
    """The document, when every field of it is one that is taken.

    :raise InvalidArgument: a field has another type. :raise Unsupported: one asks for what is not there.
    """
    given = without_nulls(raw)
    body = converted(given, Create)
    fields.check("Config", given, fields.CONFIG)
    fields.check("HostConfig", given.get("HostConfig", {}), fields.HOST_CONFIG)
    for name, endpoint in given.get("NetworkingConfig", {}).get("EndpointsConfig", {}).items():
        fields.check(f"EndpointsConfig.{name}", endpoint, fields.ENDPOINT)
    return body


def spec_of(raw: dict[str, Any], name: str, platform: str) -> ContainerSpec:
    """:raise InvalidArgument: what is wrong. :raise Unsupported: what is not there."""
    body = read_create(raw)
    host = body.host_config
    if not body.image:
        raise InvalidArgument("invalid reference format: no image is named")
    return ContainerSpec(
        image=body.image, name=name.removeprefix("/"), platform=platform, pull="never",
        command=_words(body.cmd), entrypoint=_words(body.entrypoint),
        env=body.env, workdir=body.working_dir, user=body.user, groups=host.group_add,
        hostname=body.hostname, domainname=body.domainname, tty=body.tty, stdin=body.open_stdin,
        read_only=host.readonly_rootfs, privileged=host.privileged, run_init=host.init,
        resources=resources(host), labels=body.labels, sysctls=host.sysctls, shm_size=host.shm_size,
        devices=[_device(d.path_on_host) for d in host.devices],
        ulimits=[Ulimit(name=u.name, soft=u.soft, hard=u.hard) for u in host.ulimits],
        cap_add=host.cap_add, cap_drop=host.cap_drop, **_security(host.security_opt),
        ports=_ports(host.port_bindings), expose=[p for text in body.exposed_ports for p in parse_exposed(text)],
        publish_all=host.publish_all_ports, **networking(body), **of_labels(body.labels),
        mounts=mounts_of(body), volumes_from=host.volumes_from,
        annotations=host.annotations, console_size=_console(host.console_size),
        **_health(body.healthcheck), restart=restart_of(host.restart_policy or Restart()), log=_log(host),
        stop_signal=body.stop_signal, stop_timeout=_stop_timeout(body.stop_timeout), auto_remove=host.auto_remove,
    )  # fmt: skip


def _device(path: str) -> str:
    """:raise Unsupported: it is no PCI device: the group of one in VFIO, or its address where a client sends that."""
    try:
        return parse_device(path)
    except InvalidArgument:
        raise Unsupported(f"HostConfig.Devices {path!r}: a device of this host cannot be brought into a virtual machine"
                          ) from None  # fmt: skip


def _words(given: Words | None) -> list[str] | None:
    return [given] if isinstance(given, str) else given


def _console(given: list[int]) -> tuple[int, int]:
    rows, columns = (*given, 0, 0)[:2]
    return (rows, columns) if 0 <= rows <= 0xFFFF and 0 <= columns <= 0xFFFF else (0, 0)


def _stop_timeout(seconds: int | None) -> int:
    """Docker waits for ever where it is negative; here that is as long as a number of seconds goes."""
    if seconds is None:
        return ContainerSpec(image="").stop_timeout
    return seconds if seconds >= 0 else 1 << 31


def resources(host: Limits) -> Resources:
    """:raise InvalidArgument: limits that cannot be kept together. :raise Unsupported: memory to swap to."""
    if host.memory_swap not in (0, -1, host.memory):
        raise Unsupported(f"HostConfig.MemorySwap {host.memory_swap}: a virtual machine does not swap; "
                          "give the same as Memory, or leave it out")  # fmt: skip
    if host.memory and host.memory_reservation > host.memory:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if host.memory < 0 or host.nano_cpus < 0:
        raise InvalidArgument("limits of memory and CPUs cannot be negative")
    return Resources(cpus=_cpus(host), memory=host.memory, pids=max(0, host.pids_limit or 0))


def _cpus(host: Limits) -> float:
    if host.nano_cpus and (host.cpu_period or host.cpu_quota):
        which = "CPU Period" if host.cpu_period else "CPU Quota"
        raise InvalidArgument(f"Conflicting options: Nano CPUs and {which} cannot both be set.")
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < host.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    return host.nano_cpus / _NANO if host.nano_cpus else max(host.cpu_quota, 0) / (host.cpu_period or _PERIOD)


def restart_of(given: Restart) -> RestartPolicy:
    """:raise InvalidArgument: no such policy, or a number of retries that it does not have."""
    names = get_args(RestartName)
    if given.name and given.name not in names:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{given.name}'; use one of 'no', 'always', 'on-failure', "
            "or 'unless-stopped'"
        )
    retries = given.maximum_retry_count
    if given.name == "on-failure" and retries < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if given.name not in ("", "on-failure") and retries:
        more = " and cannot be negative" if retries < 0 else ""
        raise InvalidArgument(f"invalid restart policy: maximum retry count can only be used with 'on-failure'{more}")
    if not given.name:  # as clients before 25.0 send it, whatever number they have
        return RestartPolicy()
    return RestartPolicy(name=cast(RestartName, given.name), max_retries=retries)


def _security(options: list[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for option in options:
        known = _SECURITY.get(option.replace(":", "=", 1))
        if known is not None:
            out |= known
        elif option.replace(":", "=", 1).startswith("seccomp="):  # clients send what the file has
            out |= {"seccomp": "default", "seccomp_profile": option[len("seccomp=") :] or "{}"}
        elif option.replace(":", "=", 1).startswith(("apparmor=", "label=")):
            raise Unsupported(f"SecurityOpt {option}: the guest's kernel has neither AppArmor nor SELinux")
        else:
            raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
    return out


def _ports(bindings: dict[str, list[PortBinding]]) -> list[PortMapping]:
    found = []
    for port, wanted in bindings.items():
        container, _, protocol = port.partition("/")
        for binding in wanted:
            ip = f"[{binding.host_ip}]" if ":" in binding.host_ip else binding.host_ip
            text = f"{ip}:{binding.host_port}:{container}/{protocol or 'tcp'}"
            found += parse_publish(text.removeprefix("::") if text.startswith("::") else text)
    return found


def _health(given: Healthcheck | None) -> dict[str, Any]:
    """:raise InvalidArgument: a time that is too short, or a kind of test that is none."""
    if given is None or (not given.test and given == Healthcheck()):
        return {}
    if given.test == ["NONE"]:
        return {"no_health": True}
    for name in ("interval", "timeout", "start_period", "start_interval"):
        if 0 < getattr(given, name) < 1_000_000 or getattr(given, name) < 0:
            words = "".join(w.title() for w in name.split("_"))
            raise InvalidArgument(f"{words} in Healthcheck cannot be less than 1ms")
    if given.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")
    if not given.test:
        raise Unsupported("Healthcheck without a Test: the image's times cannot be changed alone; give its Test, too")
    if given.test[0] not in ("CMD", "CMD-SHELL") or len(given.test) < 2:
        raise InvalidArgument(f'Unknown healthcheck type "{given.test[0]}" (expected "CMD")')
    command = ["/bin/sh", "-c", given.test[1]] if given.test[0] == "CMD-SHELL" else given.test[1:]
    asked: dict[str, Any] = {
        name: getattr(given, name) / _NANO
        for name in ("interval", "timeout", "start_period", "start_interval")
        if getattr(given, name)
    }
    asked |= {"retries": given.retries} if given.retries else {}
    return {"health": HealthCheck(command=command, **asked)}


def _log(host: HostConfig) -> LogOptions:
    driver = "json-file" if host.log_config.type == "local" else host.log_config.type
    return read_log_options(driver, host.log_config.config)
