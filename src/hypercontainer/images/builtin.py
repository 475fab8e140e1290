# SPDX-License-Identifier: Apache-2.0
"""The embedded default image: busybox, made from this host's static busybox.

It needs no registry, so that a first container runs on a machine without one.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from datetime import UTC, datetime
from pathlib import Path

from ..errors import NotFound, Unavailable
from ..model import architectures
from .layout import Layout
from .manifests import CONFIG, LAYER, MANIFEST, Descriptor

BUSYBOX = "docker.io/library/busybox:latest"
_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
_GROUP = "root:x:0:\ndaemon:x:1:\ntty:x:5:\nusers:x:100:\nnobody:x:65534:\n"


def _find_busybox() -> Path:
    for candidate in (shutil.which("busybox"), "/bin/busybox", "/usr/bin/busybox"):
        if candidate and Path(candidate).exists():
            return Path(candidate)
    raise Unavailable(
        "the built-in busybox image needs a static busybox on this host", hint="install the package busybox-static"
    )


def _layer(busybox: Path) -> bytes:
    """The file tree as an uncompressed tar; the same bytes for the same busybox."""
    done = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    applets = [a for a in done.stdout.split() if a != "busybox"]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, mode in (("bin", 0o755), ("etc", 0o755), ("home", 0o755), ("root", 0o700), ("tmp", 0o1777),
                           ("usr", 0o755), ("usr/sbin", 0o755), ("var", 0o755), ("var/spool", 0o755)):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, mode
            tar.addfile(info)
        for name, data, mode in (
            ("bin/busybox", busybox.read_bytes(), 0o755),
            ("etc/passwd", _PASSWD.encode(), 0o644),
            ("etc/group", _GROUP.encode(), 0o644),
        ):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), mode
            tar.addfile(info, io.BytesIO(data))
        for applet in applets:
            info = tarfile.TarInfo(f"bin/{applet}")
            info.type, info.linkname = tarfile.LNKTYPE, "bin/busybox"
            info.mode = 0o755  # some unpackers set the mode of the inode by its links
            tar.addfile(info)
    return out.getvalue()


def add_busybox(layout: Layout) -> Descriptor:
    """Put the image into the layout and return its manifest; idempotent."""
    busybox = _find_busybox()
    tar = _layer(busybox)
    blob = gzip.compress(tar, compresslevel=6, mtime=0)
    layer = layout.blobs.add(blob)
    config = {
        "created": datetime.fromtimestamp(busybox.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "architecture": architectures.host(),
        "os": "linux",
        "config": {
            "Cmd": ["sh"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest()]},
    }
    config_blob = layout.blobs.add(json.dumps(config, sort_keys=True).encode())
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config_blob.digest, "size": config_blob.size},
        "layers": [{"mediaType": f"{LAYER}+gzip", "digest": layer.digest, "size": layer.size}],
    }
    stored = layout.blobs.add(json.dumps(manifest, sort_keys=True).encode())
    return Descriptor(media_type=MANIFEST, digest=stored.digest, size=stored.size)


def builtin(name: str, layout: Layout, architecture: str) -> tuple[str, Descriptor]:
    """The full name and manifest of a built-in image.

    :raise NotFound: when there is no such image, or not for that architecture.
    """
    if name not in ("busybox", "busybox:latest"):
        raise NotFound(f"there is no built-in image {name!r}", hint="the built-in image is builtin:busybox")
    if architecture != architectures.host():
        raise NotFound(
            f"the built-in image is for linux/{architectures.host()}, not for linux/{architecture}",
            hint="leave --platform out",
        )
    return BUSYBOX, add_busybox(layout)
