# SPDX-License-Identifier: Apache-2.0
"""App Container images and pods, which rkt had: https://github.com/appc/spec, version 0.8.11.

Their manifests as they are written, and what of an app is a container's: its command, limits, rights.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import field

from ..errors import InvalidArgument
from .base import Model
from .reference import parse_reference

ID_LABEL = "org.appc.id"  # of an image that was an ACI: sha512-...
_TAG = re.compile(r"[^A-Za-z0-9_.-]")
_CAPABILITIES = "os/linux/capabilities-"
_UNITS = {
    "m": 1e-3, "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30,
    "Ti": 1 << 40,
}  # fmt: skip


class Pair(msgspec.Struct, frozen=True):
    """A label, an annotation, a variable."""

    name: str
    value: str = ""


class Isolator(msgspec.Struct, frozen=True):
    """A limit or a right."""

    name: str
    value: Any = None


class MountPoint(msgspec.Struct, frozen=True, rename="camel"):
    """A path that wants a volume."""

    name: str
    path: str
    read_only: bool = False


class Port(msgspec.Struct, frozen=True, rename="camel"):
    """A port, or several that follow each other."""

    name: str
    protocol: str
    port: int
    count: int = 1


class App(msgspec.Struct, frozen=True, rename="camel"):
    """What runs."""

    exec: list[str] = []
    user: str = ""
    group: str = ""
    supplementary_gids: list[int] = msgspec.field(default_factory=list, name="supplementaryGIDs")
    event_handlers: list[dict[str, Any]] = []
    working_directory: str = ""
    environment: list[Pair] = []
    isolators: list[Isolator] = []
    mount_points: list[MountPoint] = []
    ports: list[Port] = []


class Dependency(msgspec.Struct, frozen=True, rename="camel"):
    """An image whose files lie below."""

    image_name: str
    image_id: str = msgspec.field(default="", name="imageID")
    labels: list[Pair] = []


class ImageManifest(msgspec.Struct, frozen=True, rename="camel"):
    """Of an image."""

    ac_kind: str
    ac_version: str
    name: str
    labels: list[Pair] = []
    app: App | None = None
    annotations: list[Pair] = []
    dependencies: list[Dependency] = []
    path_whitelist: list[str] = []


class Rights(Model, frozen=True, kw_only=True):
    """What an app asks for that an image's configuration has no place for."""

    id: str = ""  # of its image
    memory: int = 0  # bytes
    cpus: float = 0.0
    groups: list[str] = field(default_factory=list)
    cap_add: list[str] = field(default_factory=list)
    cap_drop: list[str] = field(default_factory=list)
    no_new_privileges: bool = False
    ignored: list[str] = field(default_factory=list)  # what has no counterpart


def reference(name: str, labels: list[Pair]) -> str:
    """The name that an image has in the store: with its version as tag; "" where a registry's name cannot be so."""
    version = next((x.value for x in labels if x.name == "version"), "") or "latest"
    try:
        return parse_reference(f"{name}:{_TAG.sub('-', version)}").full
    except InvalidArgument:
        return ""


def rights_of(app: App) -> Rights:
    """:raise InvalidArgument: an isolator's value is none."""
    memory, cpus, no_new = 0, 0.0, False
    add: list[str] = []
    drop: list[str] = []
    ignored = [f"the event handler {h.get('name', '')}" for h in app.event_handlers]
    for isolator in app.isolators:
        name, value = isolator.name, isolator.value
        try:
            if name == "resource/memory":
                memory = int(_quantity(str(value.get("limit") or value["request"])))
            elif name == "resource/cpu":
                cpus = _quantity(str(value.get("limit") or value["request"]))
            elif name == f"{_CAPABILITIES}retain-set":
                drop, add = ["ALL"], [_capability(c) for c in value["set"]]
            elif name in (f"{_CAPABILITIES}remove-set", f"{_CAPABILITIES}revoke-set"):
                drop = [*drop, *(_capability(c) for c in value["set"])]
            elif name == "os/linux/no-new-privileges":
                no_new = bool(value)
            else:
                ignored.append(f"the isolator {name}")
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise InvalidArgument(f"isolator {name} has no value that can be: {value!r}") from error
    groups = [str(g) for g in app.supplementary_gids]
    return Rights(
        memory=memory, cpus=cpus, groups=groups, cap_add=add, cap_drop=drop, no_new_privileges=no_new, ignored=ignored
    )


def _quantity(text: str) -> float:
    """As Kubernetes writes them: 250m, 128M (decimal), 1Gi."""
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([mkMGT]?|[KMGT]i)", text)
    if not found:
        raise ValueError(text)
    return float(found[1]) * _UNITS[found[2]]


def _capability(name: str) -> str:
    return str(name).removeprefix("CAP_")
