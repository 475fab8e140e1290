# SPDX-License-Identifier: Apache-2.0
"""A Docker compose file as one pod: its services become containers that share a machine.

Fields of https://github.com/compose-spec/compose-spec. Services find each
other by name, on the pod's loopback. What has no counterpart is named.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument
from ..model.ports import parse_publish
from . import strict
from .load import Loaded

Raw = dict[str, Any]
_VARIABLE = re.compile(r"\$(?:\$|(?P<plain>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?:(?P<op>:?[-?+])(?P<word>[^}]*))?\})")
_SILENT_TOP = {"version", "name", "networks", "x-"}
_SILENT = {"container_name", "networks", "expose", "pull_policy", "platform", "scale", "profiles"}
_CONDITIONS = {"service_started": "started", "service_healthy": "healthy", "service_completed_successfully": "completed"}
_RESTART = {"no": "never", "always": "always", "on-failure": "onFailure", "unless-stopped": "unlessStopped"}


def from_compose(document: Raw, base: Path, name: str) -> Loaded:
    """`base` is the file's directory, `name` the pod's."""
    return _Translation(_interpolate(document), base, name).result()


def _interpolate(value: Any) -> Any:
    """`$NAME`, `${NAME:-default}` and the like, from the environment."""
    if isinstance(value, dict):
        return {k: _interpolate(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_interpolate(v) for v in value]
    return _VARIABLE.sub(_replace, value) if isinstance(value, str) else value


def _replace(match: re.Match[str]) -> str:
    name, op, word = match["plain"] or match["name"], match["op"] or "", match["word"] or ""
    if name is None:
        return "$"
    value = os.environ.get(name)
    present = bool(value) if op.startswith(":") else value is not None
    if op.endswith("-") and not present:
        return word
    if op.endswith("?") and not present:
        raise InvalidArgument(f"the variable {name} is not set: {word}", hint="set it in the environment")
    if op.endswith("+"):
        return word if present else ""
    return value or ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _command(value: Any) -> list[str] | None:
    return shlex.split(value) if isinstance(value, str) else value


def _mapping(value: Any) -> dict[str, str]:
    """`{a: b}` or `[a=b]`; a bare name takes its value from the environment."""
    if isinstance(value, dict):
        return {k: os.environ.get(k, "") if v is None else str(v).lower() if isinstance(v, bool) else str(v) for k, v in value.items()}
    pairs = (str(v).partition("=") for v in value or [])
    return {k: rest if equals else os.environ.get(k, "") for k, equals, rest in pairs}


class _Translation:
    """One compose file."""

    def __init__(self, document: Raw, base: Path, name: str) -> None:
        self.document = document
        self.base = base
        self.name = name
        self.unmapped = [
            k for k in document if k not in {"services", "volumes", "secrets", "configs", *_SILENT_TOP} and not k.startswith("x-")
        ]
        self.volumes: dict[str, Raw] = {}
        self.files: list[Raw] = []
        self.ports: list[Raw] = []

    def result(self) -> Loaded:
        for key, volume in (self.document.get("volumes") or {}).items():
            volume = volume or {}
            external = volume.get("name") or (key if volume.get("external") else f"{self.name}_{key}")
            self.volumes[key] = {"name": key, "format": "volume", "source": external}
        for key, config in (self.document.get("configs") or {}).items():
            self.files.append(self._file(key, config))
        containers = [self._service(key, dict(s or {})) for key, s in self.document["services"].items()]
        podfile: Raw = {
            "id": self.name, "containers": containers, "volumes": list(self.volumes.values()), "portmappings": self.ports,
            "files": self.files, "secrets": [self._secret(k, s) for k, s in (self.document.get("secrets") or {}).items()],
        }  # fmt: skip
        return Loaded(strict.decode(podfile), self.unmapped)

    def _file(self, key: str, config: Raw) -> Raw:
        if "file" in config:
            return {"name": key, "uri": f"file://{(self.base / config['file']).resolve()}"}
        return {"name": key, "content": config.get("content") or os.environ.get(config.get("environment", ""), "")}

    def _secret(self, key: str, secret: Raw) -> Raw:
        if "file" in secret:
            return {"name": key, "file": str((self.base / secret["file"]).resolve())}
        return {"name": key, "env": secret.get("environment", "")}

    def _service(self, key: str, s: Raw) -> Raw:
        if "image" not in s:
            raise InvalidArgument(f"service {key}: it has no image", hint="build it first, and name the image")
        environment: dict[str, str] = {}
        for path in _list(s.pop("env_file", None)):
            environment |= _env_file(self.base / (path["path"] if isinstance(path, dict) else path))
        environment |= _mapping(s.pop("environment", None))
        out: Raw = {
            "name": f"{self.name}-{key}", "aliases": list(dict.fromkeys([key, *filter(None, [s.get("container_name"), s.pop("hostname", None)])])),
            "image": s.pop("image"), "envs": [{"env": k, "value": v} for k, v in environment.items()],
            "command": _command(s.pop("command", None)), "entrypoint": _command(s.pop("entrypoint", None)),
            "labels": _mapping(s.pop("labels", None)), "volumes": [], "tmpfs": [], "files": [], "secrets": [],
        }  # fmt: skip
        for theirs, ours in (("working_dir", "workdir"), ("tty", "tty"), ("stdin_open", "stdin"), ("read_only", "readOnly"),
                             ("privileged", "privileged"), ("stop_signal", "stopSignal"), ("stop_grace_period", "stopTimeout")):  # fmt: skip
            if theirs in s:
                out[ours] = s.pop(theirs)
        if user := str(s.pop("user", "")):
            out["user"] = {"name": user.partition(":")[0], "group": user.partition(":")[2]}
        self._network(s)
        self._storage(key, s, out)
        self._life(s, out)
        self._limits(s, out)
        self.unmapped += [f"services.{key}.{k}" for k in s if k not in _SILENT and not k.startswith("x-")]
        return out

    def _network(self, s: Raw) -> None:
        for port in s.pop("ports", None) or []:
            if isinstance(port, dict):
                self.ports.append({"hostPort": str(port.get("published", "")), "containerPort": str(port["target"]),
                                   "protocol": port.get("protocol", "tcp"), "hostIP": port.get("host_ip", "")})  # fmt: skip
                continue
            for p in parse_publish(str(port)):
                self.ports.append(
                    {"hostPort": p.host_port or "", "containerPort": p.container_port, "protocol": p.protocol, "hostIP": p.host_ip}
                )

    def _storage(self, key: str, s: Raw, out: Raw) -> None:
        for mount in s.pop("volumes", None) or []:
            self._mount(mount if isinstance(mount, dict) else _short_mount(mount), out)
        for path in _list(s.pop("tmpfs", None)):
            out["tmpfs"].append({"path": path.partition(":")[0]})
        for kind, fallback in (("configs", "/{}"), ("secrets", "/run/secrets/{}")):
            for use in s.pop(kind, None) or []:
                use = {"source": use} if isinstance(use, str) else use
                target = use.get("target") or fallback.format(use["source"])
                path = target if target.startswith("/") else fallback.format(target)
                common = {"path": path, "user": use.get("uid", 0), "group": use.get("gid", 0)}
                if kind == "configs":
                    out["files"].append({"filename": use["source"], "perm": use.get("mode", "0444"), **common})
                else:
                    out["secrets"].append({"secret": use["source"], "perm": use.get("mode", "0444"), **common})

    def _mount(self, m: Raw, out: Raw) -> None:
        source, target = str(m.get("source") or ""), m["target"]
        if m.get("type") == "tmpfs":
            out["tmpfs"].append({"path": target})
            return
        if m.get("type") == "bind" or source.startswith((".", "/", "~")):
            path = (self.base / Path(source).expanduser()).resolve()
            source = f"bind{len(self.volumes)}"
            self.volumes[source] = {"name": source, "format": "vfs", "source": str(path), "readOnly": bool(m.get("read_only"))}
        elif not source:
            source = f"anonymous{len(self.volumes)}"
            self.volumes[source] = {"name": source}
        elif source not in self.volumes:
            raise InvalidArgument(f"the volume {source!r} is not defined", hint="define it below `volumes`")
        out["volumes"].append({"volume": source, "path": target, "readOnly": bool(m.get("read_only")),
                               "subPath": (m.get("volume") or {}).get("subpath", "")})  # fmt: skip

    def _life(self, s: Raw, out: Raw) -> None:
        depends = s.pop("depends_on", None) or {}
        entries = depends.items() if isinstance(depends, dict) else ((d, {}) for d in depends)
        out["dependsOn"] = [{"container": d, "condition": _CONDITIONS[(o or {}).get("condition", "service_started")]} for d, o in entries]
        restart, _, count = str(s.pop("restart", "no")).partition(":")
        out["restartPolicy"] = _RESTART["no" if restart == "False" else restart]
        out["maxRetries"] = int(count or 0)
        check = s.pop("healthcheck", None) or {}
        test = check.get("test")
        if not test or check.get("disable") or test == ["NONE"]:
            return
        if isinstance(test, str):
            test = ["CMD-SHELL", test]
        out["healthCheck"] = {"shell": test[1]} if test[0] == "CMD-SHELL" else {"command": test[1:]}
        keys = {
            "interval": "interval",
            "timeout": "timeout",
            "retries": "retries",
            "start_period": "startPeriod",
            "start_interval": "startInterval",
        }
        out["healthCheck"] |= {ours: check[theirs] for theirs, ours in keys.items() if theirs in check}

    def _limits(self, s: Raw, out: Raw) -> None:
        limits = ((s.pop("deploy", None) or {}).get("resources") or {}).get("limits") or {}
        memory, cpus = s.pop("mem_limit", None) or limits.get("memory", 0), s.pop("cpus", None) or limits.get("cpus", 0)
        size = memory // (1 << 20) if isinstance(memory, int) else memory
        out["limits"] = {"memory": size, "cpus": float(cpus), "pids": s.pop("pids_limit", None) or limits.get("pids", 0)}
        out["capabilities"] = {"add": s.pop("cap_add", None) or [], "drop": s.pop("cap_drop", None) or []}
        out["sysctl"] = _mapping(s.pop("sysctls", None))
        for limit, value in (s.pop("ulimits", None) or {}).items():
            both = value if isinstance(value, dict) else {"soft": value, "hard": value}
            out.setdefault("ulimits", []).append({"name": limit, "soft": both["soft"], "hard": both["hard"]})


def _short_mount(text: str) -> Raw:
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not target:
        return {"source": "", "target": source}
    return {"source": source, "target": target, "read_only": "ro" in mode.split(",")}


def _env_file(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise InvalidArgument(f"cannot read the env file {path}: {error.strerror}", hint="check the path") from error
    return _mapping([line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")])
