# SPDX-License-Identifier: Apache-2.0
"""What a sandbox is to be: from what programs write to what hyperd is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..errors import InvalidArgument
from ..model.base import encode
from ..model.mounts import parse_volume
from ..model.ports import parse_publish
from ..model.specs import ContainerSpec, Mount, PortMapping, PullPolicy, Resources
from ..model.units import parse_size

LABEL = "io.hypercontainer.sandbox"  # of each container that the SDK made: for what
_ALONE = "/sbin/docker-init"  # hyperstart's init, which before itself runs no program and reaps

Port = int | str | PortMapping
Volume = str | Mount


def sandbox_spec(
    image: str, spec: ContainerSpec | None, *, command: Sequence[str] | None, name: str | None, cpus: float | None,
    memory: int | str | None, env: Mapping[str, str] | None, workdir: str | None, user: str | None,
    ports: Sequence[Port], volumes: Sequence[Volume], network: str | None, labels: Mapping[str, str] | None,
    pull: PullPolicy | None, keep: bool, ttl: float | None, idle_timeout: float | None,
) -> ContainerSpec:  # fmt: skip
    """Arguments go over what `spec` says.

    :raise InvalidArgument: one of them is not understood.
    """
    base = spec or ContainerSpec(image=image)
    given: dict[str, Any] = {
        "name": name, "workdir": workdir, "user": user, "network": network, "pull": pull,
        "ttl": ttl, "idle_timeout": idle_timeout,
        "auto_remove": base.auto_remove or not keep,
        "resources": _resources(base.resources, cpus, memory),
        "env": [*base.env, *env_of(env)],
        "labels": {LABEL: "sdk", **base.labels, **(labels or {})},
        "ports": [*base.ports, *(m for port in ports for m in _ports(port))],
        "mounts": [*base.mounts, *(parse_volume(v) if isinstance(v, str) else v for v in volumes)],
    }  # fmt: skip
    if command is not None:
        given |= {"entrypoint": [], "command": list(command)}
    elif base.command is None and base.entrypoint is None:
        given |= {"entrypoint": [_ALONE], "command": [], "run_init": True}
    made = msgspec.structs.replace(base, image=image, **{k: v for k, v in given.items() if v is not None})
    encode(made)  # says which argument is of another type, before anything takes it for what it is not
    return made


def _resources(base: Resources, cpus: float | None, memory: int | str | None) -> Resources:
    size = parse_size(memory) if isinstance(memory, str) else memory
    return msgspec.structs.replace(
        base, cpus=base.cpus if cpus is None else cpus, memory=base.memory if size is None else size
    )


def _ports(port: Port) -> list[PortMapping]:
    """A number is the sandbox's port, on a free one of this host's loopback."""
    if isinstance(port, PortMapping):
        return [port]
    return parse_publish(f"127.0.0.1::{port}" if isinstance(port, int) else port)


def command_of(command: str | Sequence[str]) -> list[str]:
    """A text is the shell's, words are a program's.

    :raise InvalidArgument: it is nothing.
    """
    if not command:
        raise InvalidArgument("no command is given")
    return ["sh", "-c", command] if isinstance(command, str) else list(command)


def env_of(env: Mapping[str, str] | None) -> list[str]:
    """As a request has it."""
    return [f"{k}={v}" for k, v in (env or {}).items()]
