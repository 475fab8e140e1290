# SPDX-License-Identifier: Apache-2.0
"""OCI layouts of any blobs, honest or not."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import zstandard
from isal import igzip

from hypercontainer.images.manifests import CONFIG, INDEX, LAYER, MANIFEST

Blob = tuple[str, int, str]  # digest, size, digest of the contents
END = bytes(1024)  # of an archive


class Maker:
    """Makes an OCI layout of any blobs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs/sha256").mkdir(parents=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def add(self, data: bytes) -> tuple[str, int]:
        digest = hashlib.sha256(data).hexdigest()
        (self.root / "blobs/sha256" / digest).write_bytes(data)
        return f"sha256:{digest}", len(data)

    def layer(self, tar: Iterable[bytes], pack: str = "gzip") -> Blob:
        """A layer of a stream, packed; nothing of it is kept in memory."""
        path, digest = self.root / "new", hashlib.sha256()
        with open(path, "wb") as raw:
            out = (
                igzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1)
                if pack == "gzip"
                else zstandard.ZstdCompressor(1).stream_writer(raw, closefd=False)
            )  # type: ignore[no-untyped-call]
            for chunk in tar:
                digest.update(chunk)
                out.write(chunk)
            out.close()
        packed = hashlib.sha256(path.read_bytes()).hexdigest()
        size = path.stat().st_size
        path.rename(self.root / "blobs/sha256" / packed)
        return f"sha256:{packed}", size, f"sha256:{digest.hexdigest()}"

    def image(
        self, *layers: Blob, config_size: int | None = None, pack: str = "gzip", created: str = "2026-01-01T00:00:00Z"
    ) -> str:
        config = {
            "created": created,
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [b[2] for b in layers]},
        }
        digest, size = self.add(json.dumps(config).encode())
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": digest, "size": config_size or size},
            "layers": [{"mediaType": f"{LAYER}+{pack}", "digest": b[0], "size": b[1]} for b in layers],
        }  # fmt: skip
        digest, size = self.add(json.dumps(manifest).encode())
        entry = {
            "mediaType": MANIFEST,
            "digest": digest,
            "size": size,
            "annotations": {"org.opencontainers.image.ref.name": "bomb"},
        }
        (self.root / "index.json").write_text(
            json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
        )
        return f"oci:{self.root}:bomb"


def header(name: str, type_: bytes = b"0", size: int = 0, **pax: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = type_, size
    info.pax_headers = {k.replace("__", "."): v for k, v in pax.items()}
    return info.tobuf(tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT)
