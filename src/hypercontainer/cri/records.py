# SPDX-License-Identifier: Apache-2.0
"""What CRI gives and wants back, and the engine has no use for: kept with the records of pods and containers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from ..engine.engine import Engine
from ..errors import InvalidArgument, NotFound
from ..model.pods import PodSpec
from ..model.specs import ContainerSpec
from ..model.status import Container, Pod

_KEY = "cri"


class SandboxRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Of a pod that a kubelet made. Its labels are the pod's own."""

    name: str
    uid: str = ""
    namespace: str = ""
    attempt: int = 0
    log_directory: str = ""
    handler: str = ""
    pid: int = 0  # NamespaceMode
    annotations: dict[str, str] = {}


class ContainerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Of a container in such a pod. Labels and annotations are in its specification."""

    name: str
    attempt: int = 0
    image: str = ""  # as the client named it
    shown_image: str = ""  # as the pod's author did
    log_path: str = ""
    stdin_once: bool = False  # its input ends with the first client that was attached to it
    mounts: list[tuple[str, str, bool]] = []  # in the container, on the node, read-only


R = TypeVar("R", SandboxRecord, ContainerRecord)


def given(record: SandboxRecord | ContainerRecord) -> dict[str, Any]:
    """For a specification."""
    return {_KEY: msgspec.to_builtins(record)}


def _taken(spec: PodSpec | ContainerSpec, kind: type[R]) -> R | None:
    """What `given` put there; None: somebody else made it."""
    found = spec.given.get(_KEY)
    return None if found is None else msgspec.convert(found, kind)


def of_container(container: Container) -> ContainerRecord | None:
    """None: somebody else made it."""
    return _taken(container.spec, ContainerRecord)


def sandboxes(engine: Engine, wanted: Any = None) -> list[tuple[Pod, SandboxRecord]]:
    """Those of CRI; with a filter those that its id and labels mean."""
    return [
        (pod, record)
        for pod in engine.registry.pods()
        if (record := _taken(pod.spec, SandboxRecord)) and (wanted is None or _meant(wanted, pod.id, pod.labels))
    ]


def containers(engine: Engine, wanted: Any = None) -> list[tuple[Container, ContainerRecord]]:
    """Those of CRI, newest first; with a filter those that its ids and labels mean."""
    return [
        (c, record)
        for c in engine.registry.containers()
        if (record := of_container(c))
        and (wanted is None or (_meant(wanted, c.id, c.spec.labels) and c.pod.startswith(wanted.pod_sandbox_id)))
    ]


def _meant(wanted: Any, id_: str, labels: Mapping[str, str]) -> bool:
    """By the beginning of its id, where the filter has one, and all of the filter's labels."""
    return id_.startswith(wanted.id) and all(labels.get(key) == value for key, value in wanted.label_selector.items())


def sandbox(engine: Engine, id_: str) -> tuple[Pod, SandboxRecord]:
    """By its id, or by the beginning of it.

    :raise NotFound: there is none, or it is not of CRI.
    """
    pod = engine.registry.pod(_there(id_, "sandbox"))
    return pod, _ours(_taken(pod.spec, SandboxRecord), "sandbox", "pod", id_)


def container(engine: Engine, id_: str) -> tuple[Container, ContainerRecord]:
    """By its id, or by the beginning of it.

    :raise NotFound: there is none, or it is not of CRI.
    """
    found = engine.registry.container(_there(id_, "container"))
    return found, _ours(of_container(found), "container", "container", id_)


def _there(id_: str, what: str) -> str:
    if not id_:
        raise InvalidArgument(f"the {what}'s id is missing")
    return id_


def _ours(record: R | None, what: str, kind: str, id_: str) -> R:
    if record is None:
        raise NotFound(f"no such {what}: {id_}", hint=f"the {kind} of that name was not made by CRI")
    return record
