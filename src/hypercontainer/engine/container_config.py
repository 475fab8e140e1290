# SPDX-License-Identifier: Apache-2.0
"""A container's configuration as images and Docker's API have it (`Config`).

What is asked for goes over what the image says by Docker's rules, which are in
https://github.com/moby/moby/blob/master/daemon/commit.go (`merge`).
"""

from __future__ import annotations

from typing import Any

from ..model.specs import ContainerSpec, HealthCheck
from ..model.status import Container

Config = dict[str, Any]
_NANOSECONDS = 10**9
_SHELL = ["/bin/sh", "-c"]


def container_config(container: Container, image: Config) -> Config:
    """What was asked for at its creation, and the image's where nothing was; nothing that came with a start."""
    return merged(_asked(container.spec), image)


def merged(given: Config, below: Config) -> Config:
    """One configuration over another."""
    found = dict(below)
    for key in ("User", "WorkingDir", "StopSignal", "Shell", "OnBuild"):
        if given.get(key):
            found[key] = given[key]
    for key in ("ExposedPorts", "Volumes", "Labels"):
        if given.get(key) or below.get(key):
            found[key] = (below.get(key) or {}) | (given.get(key) or {})
    if env := given.get("Env"):
        names = {e.partition("=")[0] for e in env}
        found["Env"] = [*env, *(e for e in below.get("Env") or [] if e.partition("=")[0] not in names)]
    if check := given.get("Healthcheck"):
        known = below.get("Healthcheck")
        found["Healthcheck"] = (known if isinstance(known, dict) else {}) | {k: v for k, v in check.items() if v}
    return _with_command(found, given)


def _with_command(found: Config, given: Config) -> Config:
    """An entry point that is given takes no arguments of the image's; one that is empty is none."""
    entrypoint, command = given.get("Entrypoint"), given.get("Cmd")
    if entrypoint is not None:
        found.pop("Entrypoint", None)
        found.pop("Cmd", None)
        if entrypoint not in ([], [""]):
            found["Entrypoint"] = list(entrypoint)
    if command:
        found["Cmd"] = list(command)
    if entrypoint is not None or command:
        found.pop("ArgsEscaped", None)
    return found


def _asked(spec: ContainerSpec) -> Config:
    """What is a start's own, such as an address in a variable, is left out."""
    found: Config = {
        "User": spec.user,
        "WorkingDir": spec.workdir,
        "StopSignal": spec.stop_signal,
        "Env": [e for e in spec.env if e.partition("=")[0] not in spec.env_fields],
        "Labels": spec.labels,
        "ExposedPorts": {p: {} for p in (*spec.expose, *(f"{m.container_port}/{m.protocol}" for m in spec.ports))},
        "Volumes": {m.target: {} for m in spec.mounts if m.type == "volume" and not m.source},
        "Entrypoint": spec.entrypoint,
        "Cmd": spec.command,
    }
    if spec.no_health:
        found["Healthcheck"] = {"Test": ["NONE"]}
    elif spec.health and spec.health.command:
        found["Healthcheck"] = health_config(spec.health)
    return found


def health_config(check: HealthCheck) -> Config:
    """One by a command, as images have it (github.com/moby/docker-image-spec, `Healthcheck`)."""
    command = check.command or []
    shell = len(command) == 3 and command[:2] == _SHELL
    return {
        "Test": ["CMD-SHELL", command[2]] if shell else ["CMD", *command],
        "Interval": round(check.interval * _NANOSECONDS),
        "Timeout": round(check.timeout * _NANOSECONDS),
        "StartPeriod": round(check.start_period * _NANOSECONDS),
        "StartInterval": round(check.start_interval * _NANOSECONDS),
        "Retries": check.retries,
    }
