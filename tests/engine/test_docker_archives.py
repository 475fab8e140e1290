# SPDX-License-Identifier: Apache-2.0
"""Docker's Engine API: files in and out of containers."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.docker.archives import file_mode
from hypercontainer.docker.unpacking import unpacked
from hypercontainer.errors import InvalidArgument, NotFound, Unsupported
from hypercontainer.model.specs import ContainerSpec, InjectedFile
from hypercontainer.model.status import PathStat
from hypercontainer.protocol.constants import Builtin

from .served import Answer, Served, served
from .stage import IMAGE

STAT = "x-docker-container-path-stat"


async def run(s: Served, **spec: Any) -> None:
    wanted = ContainerSpec(image=IMAGE, name="a", files=[InjectedFile(target="/srv/x", content=b"12345")], **spec)
    await s.stage.engine.containers.start((await s.stage.engine.containers.create(wanted)).id)


async def archive(s: Served, method: str, query: str, body: bytes | None = None) -> Answer:
    answer = await s.ask(method, f"/v1.51/containers/a/archive?{query}", body, docker=True)
    return answer


def told(answer: Answer) -> dict[str, Any]:
    found = json.loads(base64.b64decode(answer.headers[STAT]))
    assert isinstance(found, dict)
    return found


def packed(**files: bytes) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return raw.getvalue()


async def test_a_path_is_told_and_sent(template: Path) -> None:
    async with served(template) as s:
        await run(s)
        head = await archive(s, "HEAD", "path=/srv/x")
        assert head.status == 200
        found = told(head)
        assert found.pop("mtime").endswith("Z")
        assert found == {"name": "x", "size": 5, "mode": 0o644, "linkTarget": ""}
        got = await archive(s, "GET", "path=/srv/x")
        assert got.headers["content-type"] == "application/x-tar" and told(got)["size"] == 5


async def test_what_is_not_there(template: Path) -> None:
    async with served(template) as s:
        await run(s)
        for method in ("HEAD", "GET", "PUT"):
            if method == "PUT":
                s.stage.failing[Builtin.TAR_EXTRACT] = (2, "")
            answer = await archive(s, method, "path=/nowhere", packed(y=b"1") if method == "PUT" else None)
            assert answer.status == 404, method
            if method != "HEAD":
                assert answer.json == {"message": "Could not find the file /nowhere in container a"}
            assert (await archive(s, method, "path=")).status == 400
            missing = await s.ask(method, "/containers/none/archive?path=/", docker=True)
            assert missing.status == 404


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
async def test_an_archive_is_unpacked_however_it_is_packed(template: Path, pack: Any) -> None:
    async with served(template) as s:
        await run(s)
        content = os.urandom(1000) + bytes(1 << 20)
        assert (await archive(s, "PUT", "path=/srv", pack(packed(y=content)))).status == 200
        id_ = s.stage.engine.registry.container("a").id[:12]
        assert s.stage.guest(s.stage.machine("a")).containers[id_].files["/srv/y"] == content
        if pack is not bytes:
            cut = await archive(s, "PUT", "path=/srv", pack(packed(z=content))[:-20])
            assert cut.status == 400, cut.body


async def test_whose_it_becomes_and_what_it_replaces_is_asked_of_the_guest(
    template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(template) as s:
        await run(s, user="5:6")
        seen: list[tuple[str, ...]] = []
        archives = s.stage.engine.archives
        before = archives._run

        def spied(container: Any, agent: Any, builtin: Builtin, *args: str, stdin: bool) -> Any:
            seen.append(args)
            return before(container, agent, builtin, *args, stdin=stdin)

        monkeypatch.setattr(archives, "_run", spied)
        for query in ("", "&noOverwriteDirNonDir=true", "&copyUIDGID=1&noOverwriteDirNonDir=1"):
            assert (await archive(s, "PUT", f"path=/srv{query}", packed(y=b"1"))).status == 200
        assert seen == [("/srv", "replace"), ("/srv",), ("/srv", "owner=5:6")]


async def test_a_link_is_followed_to_its_end(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links = {"/a": "b/c", "/b/c": "../d", "/d": "/e/f", "/loop": "loop", "/gone": "none"}
    async with served(template) as s:
        await run(s)
        archives = s.stage.engine.archives

        async def stat(_: str, path: str) -> PathStat:
            if path == "/none":
                raise NotFound(path)
            return link(links.get(path, ""))

        monkeypatch.setattr(archives, "stat", stat)
        for path, end in (("/a", "/e/f"), ("/loop", "/loop"), ("/gone", "/none"), ("/b/../d", "/e/f")):
            assert await archives.target("a", path, link(links[path.replace("/b/..", "")])) == end


def link(target: str) -> PathStat:
    return PathStat(name="x", size=0, mode=0o777, mtime=0, is_dir=False, link_target=target)


@pytest.mark.parametrize(
    ("mode", "kind", "go"),
    [
        (0o644, "file", 0o644),
        (0o755, "directory", 1 << 31 | 0o755),
        (0o1777, "directory", 1 << 31 | 1 << 20 | 0o777),
        (0o777, "link", 1 << 27 | 0o777),
        (0o6755, "file", 1 << 23 | 1 << 22 | 0o755),
        (0o600, "character", 1 << 26 | 1 << 21 | 0o600),
        (0o600, "block", 1 << 26 | 0o600),
        (0o600, "fifo", 1 << 25 | 0o600),
    ],
)
def test_modes_are_go_s(mode: int, kind: Any, go: int) -> None:
    found = PathStat(name="x", size=0, mode=mode, mtime=0, is_dir=False, link_target="", kind=kind)
    assert file_mode(found) == go


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def everything(*data: bytes) -> bytes:
    return b"".join([piece async for piece in unpacked(pieces(*data))])


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
async def test_bodies_in_any_pieces(pack: Any) -> None:
    data = os.urandom(5000) + bytes(3 << 20)
    whole = pack(data) + pack(b"second")
    assert await everything(*(whole[i : i + 1] for i in range(8)), whole[8:]) == data + b"second"
    assert await everything(whole, bytes(512)) == data + b"second"
    sizes = [len(piece) async for piece in unpacked(pieces(whole))]
    assert max(sizes) <= 256 << 10, "a bomb would be in memory as a whole"
    with pytest.raises(InvalidArgument, match="cut short"):
        await everything(pack(data)[:-9])
    with pytest.raises(InvalidArgument, match="cannot be unpacked"):
        await everything(whole[:20], b"x" * 1000)


async def test_a_body_that_is_not_packed() -> None:
    assert await everything() == b"" and await everything(b"", b"ab", b"c") == b"abc"
    with pytest.raises(Unsupported, match="zstd"):
        await everything(b"\x28\xb5\x2f\xfd1234")
