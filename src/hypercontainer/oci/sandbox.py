# SPDX-License-Identifier: Apache-2.0
"""Whose virtual machine a bundle's container is to be in: its own, or that of a container whose namespaces it joins."""

from __future__ import annotations

import re
from typing import Any

from ..errors import NotFound, Unsupported
from .records import Record, Records

# (what kind it is, whose sandbox it is in): CRI-O's, which podman sets for its pods, too; and containerd's.
_ANNOTATIONS = (
    ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"),
    ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"),
)
_OF_PROCESS = re.compile(r"^/proc/([1-9][0-9]*)/ns/\w+\Z")
_OWN = {"pid": "processes", "ipc": "IPC objects", "uts": "a host name", "mount": "mounts", "network": "a network"}


def namespaces_of(config: dict[str, Any]) -> dict[str, str]:
    """Its namespaces by their kinds, with their paths, "" for a new one.

    :raise Unsupported: it does without one, and so would use this host's.
    """
    found = {n["type"]: n.get("path", "") for n in (config.get("linux") or {}).get("namespaces") or []}
    for kind, what in _OWN.items():
        if kind not in found:
            raise Unsupported(
                f"a virtual machine has {what} of its own: it cannot use the {kind} namespace of this host",
                hint="give the container a namespace of its own",
            )
    if "user" in found:
        raise Unsupported("there are no user namespaces in a virtual machine, which keeps its users from this host's")
    return found


def joined(config: dict[str, Any], records: Records) -> Record | None:
    """The container whose machine it shares; None for a machine of its own.

    :raise NotFound: that container is not there. :raise Unsupported: it joins a namespace of somebody else's.
    """
    namespaces, annotations = namespaces_of(config), config.get("annotations") or {}
    sandbox = ""
    for kind, of in _ANNOTATIONS:
        if annotations.get(kind) == "container":
            sandbox = annotations.get(of, "")
    if sandbox:
        try:
            return records.get(sandbox)
        except NotFound:
            if not _shares(namespaces):  # a pod of podman's without a container of its own: `--infra=false`
                return None
            raise NotFound(f"the sandbox {sandbox} of this container is not one of hyper-runtime's") from None
    found = {kind: _owner(path, records) for kind, path in namespaces.items() if path}
    for kind, owner in found.items():
        if owner is None and kind not in ("network", "cgroup", "time"):
            raise Unsupported(f"the {kind} namespace {namespaces[kind]} of this host cannot be a virtual machine's")
    machines = {owner.pod: owner for owner in found.values() if owner}
    if len(machines) > 1:
        raise Unsupported("a container cannot be in two virtual machines: its namespaces are of different containers")
    return next(iter(machines.values()), None)


def _shares(namespaces: dict[str, str]) -> bool:
    """Whether others have one of them, too; a network's has a path also where it is the container's alone."""
    return any(path for kind, path in namespaces.items() if kind not in ("network", "cgroup"))


def _owner(path: str, records: Records) -> Record | None:
    match = _OF_PROCESS.match(path)
    return records.by_pid(int(match[1])) if match else None
