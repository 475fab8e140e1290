# SPDX-License-Identifier: Apache-2.0
"""An image as it can be compared: its configuration without what no two builds share, and the tree of its layers."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from typing import Any

_FIELDS = ("architecture", "os", "variant", "config")  # what says how it runs, and what for


@dataclass(frozen=True)
class Comparable:
    config: dict[str, Any]
    steps: list[str]
    tree: dict[str, tuple[Any, ...]]  # by path
    times: dict[str, int]  # seconds, by path


def read(archive: bytes) -> Comparable:
    """Of an archive that `docker save` or `hyperctl save` wrote, with one image in it."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:

        def content(name: str) -> bytes:
            found = tar.extractfile(name)
            assert found
            return found.read()

        entry = json.loads(content("manifest.json"))[0]
        config = json.loads(content(entry["Config"]))
        tree: dict[str, tuple[Any, ...]] = {}
        times: dict[str, int] = {}
        for layer in entry["Layers"]:
            with tarfile.open(fileobj=io.BytesIO(content(layer))) as members:
                _apply(members, tree, times)
    steps = [each.get("created_by", "") for each in config.get("history", [])]
    return Comparable({name: config[name] for name in _FIELDS if name in config}, steps, tree, times)


def _apply(members: tarfile.TarFile, tree: dict[str, tuple[Any, ...]], times: dict[str, int]) -> None:
    for member in members:
        path = member.name.removeprefix("./").strip("/")
        directory, _, name = path.rpartition("/")
        if name.startswith(".wh."):
            hidden = directory if name == ".wh..wh..opq" else f"{directory}/{name.removeprefix('.wh.')}".lstrip("/")
            for other in [p for p in tree if p.startswith(f"{hidden}/") or (p == hidden and name != ".wh..wh..opq")]:
                del tree[other]
            continue
        data = members.extractfile(member) if member.isreg() else None
        digest = hashlib.sha256(data.read()).hexdigest() if data else ""
        attributes = sorted((k, v) for k, v in member.pax_headers.items() if k.startswith("SCHILY.xattr."))
        owner = (oct(member.mode), member.uid, member.gid)
        tree[path] = (member.type, *owner, member.linkname, member.devmajor, member.devminor, digest, attributes)
        times[path] = int(member.mtime)


def differences(ours: Comparable, theirs: Comparable, begun: int) -> list[str]:
    """What is not the same. Times count where a build keeps them: those of before it began, in seconds."""
    found = []
    for name in sorted({*ours.config, *theirs.config}):
        if ours.config.get(name) != theirs.config.get(name):
            found.append(f"{name}: {ours.config.get(name)} here, {theirs.config.get(name)} outside")
    if ours.steps != theirs.steps:
        found.append(f"steps: {ours.steps} here, {theirs.steps} outside")
    for path in sorted({*ours.tree, *theirs.tree}):
        if ours.tree.get(path) != theirs.tree.get(path):
            found.append(f"/{path}: {ours.tree.get(path)} here, {theirs.tree.get(path)} outside")
            continue
        here, there = ours.times[path], theirs.times[path]
        if here != there and min(here, there) < begun:
            found.append(f"/{path}: of {here} here, of {there} outside")
    return found
