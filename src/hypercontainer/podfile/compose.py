# SPDX-License-Identifier: Apache-2.0
"""A Docker compose file as one pod: its services become containers that share a machine.

Services find each other by name, on the pod's loopback. What has no
counterpart is named; what would make a service less safe than its file asks
for is refused.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ..errors import InvalidArgument
from ..model.lifetimes import of_labels
from ..model.ports import parse_publish
from ..model.specs import LOG_DRIVERS
from . import composefile as f
from . import strict
from .composemounts import Storage, podfile_size, words
from .composenet import Isolation
from .load import Loaded
from .variables import interpolate, read_file

Raw = dict[str, Any]
_SILENT = {"extension", "expose", "pull_policy", "attach", "annotations", "build", "profiles"}
_CONDITIONS = {
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
}
_RESTART = {"no": "never", "always": "always", "on-failure": "onFailure", "unless-stopped": "unlessStopped"}
_DEPLOY_RESTART = {"none": "never", "on-failure": "onFailure", "any": "always"}
_SECURITY: dict[str, Raw] = {
    "no-new-privileges": {"noNewPrivileges": True},
    "no-new-privileges=true": {"noNewPrivileges": True},
    "no-new-privileges=false": {},
    "seccomp=unconfined": {"seccomp": "unconfined", "seccompProfile": ""},
    "seccomp=builtin": {"seccomp": "default", "seccompProfile": ""},
    "apparmor=unconfined": {},
    "label=disable": {},
}


def _security(option: str, where: str) -> Raw:
    """:raise InvalidArgument: what no virtual machine has."""
    plain = option.replace(":", "=", 1)
    kind, _, value = plain.partition("=")
    if plain in _SECURITY:
        return _SECURITY[plain]
    if kind == "seccomp" and value:
        return {"seccomp": "default", "seccompProfile": value}
    raise InvalidArgument(
        f"{where}: the security option {option!r} cannot be enforced here, so this file does not run",
        hint="leave it out if the virtual machine is enough",
    )


def from_compose(document: Raw, base: Path, name: str) -> Loaded:
    """`base` is the file's directory, `name` the pod's; without one it is the file's own.

    :raise InvalidArgument: with the path of what is wrong, or what cannot be kept apart in one pod.
    """
    variables: dict[str, str] = read_file(base / ".env", os.environ) if (base / ".env").is_file() else {}
    variables |= os.environ
    compose = strict.decode(interpolate(document, variables), f.Compose, "compose file")
    name = name or compose.name or variables.get("COMPOSE_PROJECT_NAME", "")
    if not name:
        raise InvalidArgument(
            "a compose file becomes one pod", hint="name that pod with --pod NAME, or by the file's name:"
        )
    return _Translation(compose, base, name, variables).result()


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _integer(text: str, what: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise InvalidArgument(f"compose file: invalid {what} {text!r}", hint="give a whole number")
    return int(text)


class _Translation:
    """One compose file."""

    def __init__(self, compose: f.Compose, base: Path, name: str, variables: Mapping[str, str]) -> None:
        self.compose = compose
        self.base = base
        self.name = name
        self.variables = variables
        self.unmapped = [k for k in ("include", "models") if getattr(compose, k) is not None]
        self.storage = Storage(base, {})
        self.ports: list[Raw] = []
        self.pod: Raw = {"dns": [], "dnsSearch": [], "dnsOptions": [], "hosts": []}
        self.services = self._enabled()

    def _enabled(self) -> dict[str, f.Service]:
        """Without those of profiles that nobody asked for."""
        wanted = set(filter(None, self.variables.get("COMPOSE_PROFILES", "").split(",")))
        everything = self.compose.services
        return {k: s for k, s in everything.items() if not s.profiles or wanted & set(s.profiles) or "*" in wanted}

    def result(self) -> Loaded:
        c = self.compose
        for key, volume in c.volumes.items():
            volume = volume or f.Volume()
            self.storage.volumes[key] = {
                "name": key,
                "format": "volume",
                "source": volume.name or (key if volume.external else f"{self.name}_{key}"),
            }
            self.unmapped += [f"volumes.{key}.driver_opts"] if volume.driver_opts else []
        isolation = Isolation(c, self.services)
        files = [self._source(k, s, "config") for k, s in c.configs.items()]
        secrets = [self._source(k, s, "secret") for k, s in c.secrets.items()]
        containers = [self._service(key, s) for key, s in self.services.items()]
        self._links(containers)
        self._share_processes(containers)
        self.unmapped += isolation.told
        if isolation.network == "none" and self.ports:
            self.unmapped.append("ports of services in internal networks")
            self.ports = []
        shm = max([s.shm_size for s in self.services.values() if s.shm_size], key=_bytes, default=0)
        podfile: Raw = {
            "id": self.name,
            "pid": "container",
            "containers": containers,
            "volumes": list(self.storage.volumes.values()),
            "portmappings": self.ports,
            "files": files,
            "secrets": secrets,
            "network": isolation.network,
            "networks": [{"name": n} for n in isolation.joined],
            **self.pod,
            **msgspec.to_builtins(c.hyper),
            **({"shmSize": podfile_size(shm)} if shm else {}),
            **self._lifetime(containers),
        }
        return Loaded(strict.decode(podfile, what="compose file"), list(dict.fromkeys(self.unmapped)))

    def _lifetime(self, containers: list[Raw]) -> Raw:
        """By labels of its services, of which the shortest counts; 0 is no time."""
        found: Raw = {}
        for name, seconds in (item for c in containers for item in of_labels(c["labels"]).items() if item[1]):
            found[name] = min(seconds, found.get(name, seconds))
        return {("idleTimeout" if name == "idle_timeout" else name): seconds for name, seconds in found.items()}

    def _source(self, key: str, s: f.Source, kind: str) -> Raw:
        if s.external:
            raise InvalidArgument(
                f"the {kind} {key!r} is external, and there is none outside of files here",
                hint="give its file, environment or content",
            )
        if s.file:
            path = str((self.base / s.file).resolve())
            return {"name": key, "uri": f"file://{path}"} if kind == "config" else {"name": key, "file": path}
        if kind == "config" or s.content is not None:
            return {"name": key, "content": self.variables.get(s.environment, "") if s.content is None else s.content}
        return {"name": key, "env": s.environment}

    # -- services ---------------------------------------------------------------------

    def _service(self, key: str, s: f.Service) -> Raw:
        if not s.image:
            raise InvalidArgument(f"service {key}: it has no image", hint="build it first, and name the image")
        where = f"services.{key}"
        out: Raw = {
            "name": s.container_name or f"{self.name}-{key}",
            "aliases": self._aliases(key, s),
            "image": s.image,
            "platform": s.platform,
            "envs": [{"env": k, "value": v} for k, v in self._environment(s).items()],
            "command": _command(s.command),
            "entrypoint": _command(s.entrypoint),
            "labels": self._mapping(s.labels),
            "workdir": s.working_dir,
            "tty": s.tty,
            "stdin": s.stdin_open,
            "readOnly": s.read_only,
            "privileged": s.privileged,
            "init": s.init,
            "stopSignal": s.stop_signal,
            "stopTimeout": s.stop_grace_period,
            "volumes": [],
            "tmpfs": [],
            "files": [],
            "secrets": [],
            "capabilities": {"add": s.cap_add, "drop": s.cap_drop},
            "sysctl": self._mapping(s.sysctls),
        }
        user, _, group = str(s.user).partition(":")
        out["user"] = {"name": user, "group": group, "additionalGroups": s.group_add}
        self._publish(s)
        self._resolver(s)
        self.storage.add(s, out)
        self._life(s, out, where)
        self._limits(s, out, where)
        for option in s.security_opt:
            out |= _security(option, where)
        self.unmapped += [
            f"{where}.{n.name}"
            for n in msgspec.structs.fields(f.Service)
            if n.type is Any and n.name not in _SILENT and getattr(s, n.name)
        ]
        return out

    def _aliases(self, key: str, s: f.Service) -> list[str]:
        networks = s.networks.values() if isinstance(s.networks, dict) else []
        return list(
            dict.fromkeys(
                [key, *filter(None, [s.container_name, s.hostname]), *(a for n in networks if n for a in n.aliases)]
            )
        )

    def _links(self, containers: list[Raw]) -> None:
        by_key = dict(zip(self.services, containers, strict=True))
        for key, s in self.services.items():
            for link in s.links:
                other, _, alias = link.partition(":")
                if other not in by_key:
                    raise InvalidArgument(
                        f"services.{key}: it links to {other!r}, which is not there", hint="correct the name"
                    )
                if alias and alias not in by_key[other]["aliases"]:
                    by_key[other]["aliases"].append(alias)

    def _share_processes(self, containers: list[Raw]) -> None:
        """`pid: service:NAME`: those of one pod that see each other's processes see all that do."""
        by_key = dict(zip(self.services, containers, strict=True))
        for key, s in self.services.items():
            kind, _, other = s.pid.partition(":")
            if kind != "service":
                self.unmapped += [f"services.{key}.pid"] if s.pid else []
                continue
            if other not in by_key:
                raise InvalidArgument(f"services.{key}.pid: there is no service {other!r}", hint="correct the name")
            by_key[key]["pid"] = by_key[other]["pid"] = "pod"

    def _mapping(self, value: f.Pairs) -> dict[str, str]:
        """`{a: b}` or `[a=b]`; a bare name takes its value from the environment."""
        if isinstance(value, dict):
            return {k: self.variables.get(k, "") if v is None else _text(v) for k, v in value.items()}
        pairs = (v.partition("=") for v in value or [])
        return {k: rest if equals else self.variables.get(k, "") for k, equals, rest in pairs}

    def _environment(self, s: f.Service) -> dict[str, str]:
        found: dict[str, str] = {}
        for entry in words(s.env_file):
            one = f.EnvFile(path=entry) if isinstance(entry, str) else entry
            path = self.base / one.path
            if one.required or path.exists():
                found |= read_file(path, self.variables, raw=one.format == "raw")
        return found | self._mapping(s.environment)

    def _publish(self, s: f.Service) -> None:
        for port in s.ports:
            if isinstance(port, f.Port):
                self.ports.append(
                    {
                        "hostPort": str(port.published or ""),
                        "containerPort": str(port.target),
                        "protocol": port.protocol,
                        "hostIP": port.host_ip,
                    }
                )
                continue
            for p in parse_publish(str(port)):
                self.ports.append(
                    {
                        "hostPort": p.host_port or "",
                        "containerPort": p.container_port,
                        "protocol": p.protocol,
                        "hostIP": p.host_ip,
                    }
                )

    def _resolver(self, s: f.Service) -> None:
        """What the containers of a pod share of it."""
        for theirs, ours in ((s.dns, "dns"), (s.dns_search, "dnsSearch"), (s.dns_opt, "dnsOptions")):
            self.pod[ours] += [v for v in words(theirs) if v not in self.pod[ours]]
        entries = s.extra_hosts or []
        pairs: list[tuple[str, str]] = []
        if isinstance(entries, dict):
            pairs = [(name, ip) for name, ips in entries.items() for ip in words(ips)]
        else:
            pairs = [
                (e.partition("=")[0], e.partition("=")[2]) if "=" in e else (e.partition(":")[0], e.partition(":")[2])
                for e in entries
            ]
        for name, ip in pairs:
            host = {"ip": ip.strip("[]"), "names": [name]}
            if host not in self.pod["hosts"]:
                self.pod["hosts"].append(host)

    # -- life and limits ------------------------------------------------------------------

    def _life(self, s: f.Service, out: Raw, where: str) -> None:
        depends = s.depends_on or {}
        entries = depends if isinstance(depends, dict) else {d: f.Depends() for d in depends}
        for other, how in entries.items():
            if other in self.services:
                out.setdefault("dependsOn", []).append({"container": other, "condition": _CONDITIONS[how.condition]})
            elif how.required:
                why = "belongs to a profile that is off" if other in self.compose.services else "is not there"
                raise InvalidArgument(
                    f"{where}: it depends on {other!r}, which {why}",
                    hint="set COMPOSE_PROFILES, or leave the dependency out",
                )
        restart, _, count = str(s.restart or "no").partition(":")
        if restart not in _RESTART:
            raise InvalidArgument(
                f"{where}.restart: invalid value {restart!r}", hint=f"use one of {', '.join(_RESTART)}"
            )
        out["restartPolicy"], out["maxRetries"] = _RESTART[restart], _integer(count or "0", "number of retries")
        if policy := s.deploy.restart_policy:
            out["restartPolicy"], out["maxRetries"] = _DEPLOY_RESTART[policy.condition], policy.max_attempts
        check = s.healthcheck
        test = ["CMD-SHELL", check.test] if isinstance(check.test, str) else check.test
        if not test or check.disable or test[0] == "NONE":
            return
        if test[0] not in ("CMD", "CMD-SHELL") or len(test) < 2:
            raise InvalidArgument(
                f"{where}.healthcheck.test: it begins with {test[0]!r}",
                hint="begin it with CMD or CMD-SHELL, and give a command",
            )
        out["healthCheck"] = {"shell": test[1]} if test[0] == "CMD-SHELL" else {"command": test[1:]}
        keys = {
            "interval": "interval",
            "timeout": "timeout",
            "retries": "retries",
            "start_period": "startPeriod",
            "start_interval": "startInterval",
        }
        out["healthCheck"] |= {
            ours: getattr(check, theirs) for theirs, ours in keys.items() if getattr(check, theirs) is not None
        }

    def _limits(self, s: f.Service, out: Raw, where: str) -> None:
        limits = s.deploy.resources.limits
        pids = s.pids_limit if s.pids_limit is not None else limits.pids or 0
        out["limits"] = {
            "memory": podfile_size(s.mem_limit or limits.memory or 0),
            "cpus": _number(s.cpus or limits.cpus or 0, f"{where}.cpus"),
            "pids": 0 if pids == -1 else pids,
        }
        both = {k: (v, v) if isinstance(v, int) else (v.soft, v.hard) for k, v in s.ulimits.items()}
        out["ulimits"] = [{"name": k, "soft": soft, "hard": hard} for k, (soft, hard) in both.items()]
        if s.logging.driver in ("", *LOG_DRIVERS):
            out["log"] = {"type": s.logging.driver, "config": {k: _text(v) for k, v in s.logging.options.items()}}
        else:
            self.unmapped.append(f"{where}.logging.driver {s.logging.driver}")
        if str(s.deploy.replicas) != "1":
            self.unmapped.append(f"{where}.deploy.replicas")


def _bytes(size: int | str) -> int:
    from ..model.units import parse_size

    return parse_size(size) if isinstance(size, str) else size


def _number(value: Any, what: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise InvalidArgument(f"compose file: {what}: {value!r} is no number", hint="write it as 0.5") from None


def _command(value: f.Words) -> list[str] | None:
    try:
        return shlex.split(value) if isinstance(value, str) else value
    except ValueError as error:
        raise InvalidArgument(
            f"compose file: the command {value!r} cannot be split into words: {error}", hint="write it as a list"
        ) from error
