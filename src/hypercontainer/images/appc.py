# SPDX-License-Identifier: Apache-2.0
"""App Container images: a manifest becomes an image's configuration, what lies below `rootfs` its highest layer.

Below that are the layers of what it depends on, which must be here. Source: https://github.com/appc/spec, 0.8.11.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ..errors import InvalidArgument, NotFound, Unsupported
from ..model.appc import ID_LABEL, App, Dependency, ImageManifest, Rights, reference, rights_of
from ..model.moments import write_moment
from ..model.reference import parse_reference
from ..sys import clock
from ..sys.documents import UNREADABLE
from .bundle import Found
from .layout import Layout, chosen
from .manifests import CONFIG, LAYER, MANIFEST, Descriptor

# appc's names of processors -> OCI's architecture and variant.
_ARCHITECTURES = {
    "amd64": ("amd64", ""), "i386": ("386", ""), "aarch64": ("arm64", "v8"), "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"), "ppc64": ("ppc64", ""), "ppc64le": ("ppc64le", ""), "s390x": ("s390x", ""),
}  # fmt: skip
_PORTS_MAX = 1000
_KNOWN = {  # annotations that OCI has names for
    "authors": "org.opencontainers.image.authors", "homepage": "org.opencontainers.image.url",
    "documentation": "org.opencontainers.image.documentation",
}  # fmt: skip


def read_manifest(text: bytes) -> ImageManifest:
    """:raise InvalidArgument: it is none of an image. :raise Unsupported: it asks for what is not here."""
    try:
        found = msgspec.json.decode(text, type=ImageManifest)
    except UNREADABLE as error:
        raise InvalidArgument(f"has a manifest that is damaged: {error}") from error
    if found.ac_kind != "ImageManifest":
        raise InvalidArgument(f"is of the kind {found.ac_kind!r}, not an image")
    if found.path_whitelist:
        raise Unsupported("has a pathWhitelist, which cannot be kept", hint="render it into one image first")
    return found


def take(layout: Layout, text: bytes, layer: Path, plain: Path) -> tuple[Found, Rights]:
    """Put an image into the store: its manifest, its layer, and the archive without compression, whose digest it has.

    :raise InvalidArgument: the manifest is none. :raise NotFound: with all that it depends on and is not here.
    """
    manifest = read_manifest(text)
    app = manifest.app or App()
    with open(plain, "rb") as file:
        id_ = "sha512-" + hashlib.file_digest(file, "sha512").hexdigest()
    below, diff_ids = _below(layout, manifest.dependencies)
    with open(layer, "rb") as file:
        size = layer.stat().st_size
        digest = layout.blobs.take(file.fileno(), 0, size)
    layers = [*below, Descriptor(media_type=LAYER, digest=digest, size=size)]
    document = _document(manifest, app, id_) | {"rootfs": {"type": "layers", "diff_ids": [*diff_ids, digest]}}
    config = layout.blobs.add(json.dumps(document).encode(), CONFIG)
    made = {
        "schemaVersion": 2, "mediaType": MANIFEST, "config": msgspec.to_builtins(config),
        "layers": [msgspec.to_builtins(x) for x in layers],
    }  # fmt: skip
    name = reference(manifest.name, manifest.labels)
    found = Found(layout.blobs.add(json.dumps(made).encode(), MANIFEST), [name] if name else [])
    return found, msgspec.structs.replace(rights_of(app), id=id_)


def _below(layout: Layout, dependencies: list[Dependency]) -> tuple[list[Descriptor], list[str]]:
    """The layers of what it depends on, in their order: "placed down before the files from this image"."""
    names, missing = layout.names(), []
    layers: list[Descriptor] = []
    diff_ids: list[str] = []
    for dependency in dependencies:
        entry = names.get(reference(dependency.image_name, dependency.labels))
        image = layout.load(chosen(entry)) if entry else None
        labels = (image.config.config.get("Labels") or {}) if image else {}
        if image is None or (dependency.image_id and not _is(labels, dependency.image_id)):
            missing.append(_shown(dependency))
            continue
        layers += image.manifest.layers
        diff_ids += image.config.rootfs.diff_ids
    if missing:
        raise NotFound(f"depends on {', '.join(missing)}", hint="load what is missing first")
    return layers, diff_ids


def _is(labels: Mapping[str, Any], id_: str) -> bool:
    """By an id, or its beginning."""
    return str(labels.get(ID_LABEL, "")).startswith(id_)


def _shown(d: Dependency) -> str:
    name = reference(d.image_name, d.labels)
    return (parse_reference(name).familiar if name else d.image_name) + (f" ({d.image_id[:19]})" if d.image_id else "")


def _document(manifest: ImageManifest, app: App, id_: str) -> dict[str, Any]:
    labels = {x.name: x.value for x in manifest.labels}
    notes = {x.name: x.value for x in manifest.annotations}
    if labels.get("os", "linux") != "linux":
        raise InvalidArgument(f"is for {labels['os']}, not for linux")
    architecture, variant = _ARCHITECTURES.get(labels.get("arch", "amd64"), ("", ""))
    if not architecture:
        raise InvalidArgument(f"is for processors of the kind {labels['arch']!r}, which has no name in OCI's images")
    kept = {_KNOWN.get(k, k): v for k, v in notes.items() if k != "created"}
    created = notes.get("created") or write_moment(clock.now_ns())
    found: dict[str, Any] = {
        "created": created, "os": "linux", "architecture": architecture,
        "config": _config(app) | {"Labels": kept | {ID_LABEL: id_}},
        "history": [{"created": created, "comment": f"App Container image {manifest.name}"}],
    }  # fmt: skip
    return (
        found | ({"variant": variant} if variant else {}) | ({"author": notes["authors"]} if "authors" in notes else {})
    )


def _config(app: App) -> dict[str, Any]:
    """What of an app images have a place for."""
    for name in (app.user, app.group):
        if name.startswith("/"):
            raise Unsupported(f"runs as who owns {name}", hint="give the user and the group by name or number")
    user = app.user + (f":{app.group}" if app.group else "")
    ports = [port for p in app.ports for port in _ports(p.port, p.count, p.protocol)]
    found: dict[str, Any] = {
        "Entrypoint": app.exec,
        "User": user,
        "WorkingDir": app.working_directory,
        "Env": [f"{e.name}={e.value}" for e in app.environment],
        "ExposedPorts": {p: {} for p in ports},
        "Volumes": {m.path: {} for m in app.mount_points},
    }
    return {k: v for k, v in found.items() if v}


def _ports(first: int, count: int, protocol: str) -> list[str]:
    last = first + max(count, 1) - 1
    if not (1 <= first <= last <= 65535 and last - first < _PORTS_MAX and re.fullmatch("tcp|udp", protocol)):
        raise InvalidArgument(f"names ports that cannot be: {first} and {count} in all, of {protocol!r}")
    return [f"{port}/{protocol}" for port in range(first, last + 1)]
