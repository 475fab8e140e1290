# SPDX-License-Identifier: Apache-2.0
"""What the services of a compose file mount: volumes, directories of the host, tmpfs, configs and secrets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument
from ..model.mounts import PROPAGATIONS, SHARED, parse_tmpfs
from . import composefile as f

Raw = dict[str, Any]


def words(value: Any) -> list[Any]:
    """One, several, or none."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def podfile_size(value: int | str) -> str | int:
    """A number is bytes here, and MB in a podfile."""
    return f"{value}b" if isinstance(value, int) else value


class Storage:
    """Of one compose file."""

    def __init__(self, base: Path, volumes: dict[str, Raw]) -> None:
        """`volumes` are those that the file defines; what services mount besides is added."""
        self._base = base
        self.volumes = volumes

    def add(self, s: f.Service, out: Raw) -> None:
        """What one service mounts, to the podfile's container."""
        for mount in s.volumes:
            self._mount(mount if isinstance(mount, f.Mount) else _short_mount(mount), out)
        for text in words(s.tmpfs):
            t = parse_tmpfs(text)
            out["tmpfs"].append(
                {"path": t.target, "size": f"{t.size}b", "perm": f"{t.mode:04o}", "readOnly": t.read_only}
            )
        for uses, fallback, kind, key in (
            (s.configs, "/{}", "files", "filename"),
            (s.secrets, "/run/secrets/{}", "secrets", "secret"),
        ):
            for use in uses:
                use = f.Use(source=use) if isinstance(use, str) else use
                target = use.target or fallback.format(use.source)
                path = target if target.startswith("/") else fallback.format(target)
                mode = "0444" if use.mode is None else use.mode
                out[kind].append({key: use.source, "path": path, "perm": mode, "user": use.uid, "group": use.gid})

    def _mount(self, m: f.Mount, out: Raw) -> None:
        source = m.source
        if m.type == "tmpfs":
            out["tmpfs"].append(
                {"path": m.target, "size": podfile_size(m.tmpfs.size), "perm": m.tmpfs.mode, "readOnly": m.read_only}
            )
            return
        if m.type == "bind" or source.startswith((".", "/", "~")):
            path = _bind_source(self._base, source, make=m.bind.create_host_path)
            source = f"bind{len(self.volumes)}"
            self.volumes[source] = {"name": source, "format": "vfs", "source": str(path), "readOnly": m.read_only}
        elif not source:
            source = f"anonymous{len(self.volumes)}"
            self.volumes[source] = {"name": source}
        elif source not in self.volumes:
            raise InvalidArgument(f"the volume {source!r} is not defined", hint="define it below `volumes`")
        out["volumes"].append(
            {
                "volume": source,
                "path": m.target,
                "readOnly": m.read_only,
                "subPath": m.volume.subpath,
                "noCopy": m.volume.nocopy,
                "propagation": _propagation(m),
            }
        )


def _short_mount(text: str) -> f.Mount:
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not target:
        return f.Mount(target=source)
    flags = mode.split(",")
    return f.Mount(
        source=source, target=target, read_only="ro" in flags, volume=f.VolumeOptions(nocopy="nocopy" in flags),
        bind=f.BindOptions(propagation=next((w for w in flags if PROPAGATIONS.get(w) or w in SHARED), "")),
    )  # fmt: skip


def _propagation(m: f.Mount) -> str:
    """:raise InvalidArgument: what is mounted in the container shall come to this host."""
    if m.bind.propagation in SHARED:
        raise InvalidArgument(
            f"{m.target}: what is mounted in a virtual machine does not come to this host ({m.bind.propagation})",
            hint="use rslave, or leave the propagation out",
        )
    return PROPAGATIONS.get(m.bind.propagation, "")


def _bind_source(base: Path, source: str, *, make: bool) -> Path:
    """The path; a directory that is not there is made, as Docker does."""
    try:
        path = (base / Path(source).expanduser()).resolve()
        if make and not os.path.lexists(path):
            os.makedirs(path, exist_ok=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidArgument(
            f"cannot mount {source[:200]!r}: {error}", hint="correct the path, or make it yourself"
        ) from error
    return path
