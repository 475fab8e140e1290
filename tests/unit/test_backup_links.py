# SPDX-License-Identifier: Apache-2.0
"""What is changed in a tree while a backup reads it."""

import io
import os
import tarfile
from pathlib import Path

import zstandard

from hypercontainer.engine.backup.archive import Writer


def _names(packed: bytes) -> list[str]:
    data = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getnames()


def test_a_link_in_a_directorys_place_leads_nowhere(tmp_path: Path) -> None:
    """Who writes to a volume has nothing of the host read into it."""
    host, tree = tmp_path / "host", tmp_path / "tree"
    (host / "keys").mkdir(parents=True)
    (host / "keys" / "secret").write_bytes(b"secret")
    (tree / "d" / "keys").mkdir(parents=True)
    (tree / "d" / "a").write_bytes(os.urandom(3 << 20))
    writer, packed = Writer(), b""
    for piece in writer.tree(tree, "volumes/v", {}, lambda path: False):
        if not packed:
            (tree / "d").rename(tree / "e")
            (tree / "d").symlink_to(host)
        packed += piece
    packed += b"".join(writer.end([]))
    assert _names(packed) == ["volumes/v", "volumes/v/d", "volumes/v/d/a", "volumes/v/d/keys", "end.json"]
