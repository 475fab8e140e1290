# SPDX-License-Identifier: Apache-2.0
"""Snapshots as files, over fakes: what comes back, and what is refused of archives that somebody has changed."""

from __future__ import annotations

import asyncio
import io
import os
import re
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from msgspec.structs import replace

from hypercontainer.engine.forks import packing, transfers
from hypercontainer.engine.forks.layers import Layered
from hypercontainer.engine.forks.packing import Manifest, Unpacking, describe
from hypercontainer.engine.principal import asked_by
from hypercontainer.errors import Conflict, HyperError, InvalidArgument, InvalidState, NotFound, PermissionDenied
from hypercontainer.hypervisor.fake_saving import SavingDriver
from hypercontainer.model.principal import Principal
from hypercontainer.model.snapshots import RestoreRequest, SnapshotRequest
from hypercontainer.model.specs import Mount

from .scenes import plan, spec
from .stage import Stage
from .test_snapshots import saving  # noqa: F401

Change = Callable[[Manifest], Manifest]


async def exported(s: Stage, name: str = "shot") -> bytes:
    async def all_of() -> bytes:
        return b"".join([piece async for piece in s.engine.transfers.export(name)])

    return await s.call(all_of())


async def imported(s: Stage, data: bytes, name: str = "") -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(data), 1000):
            yield data[at : at + 1000]

    await s.call(s.engine.transfers.import_(pieces(), name))


async def _nothing() -> AsyncIterator[bytes]:
    yield b""


async def saved(s: Stage) -> bytes:
    await s.run("a", "sleep", "1000", mounts=[Mount(target="/d", source="vol")])
    await s.call(s.engine.snapshots.create(SnapshotRequest(pod="a", name="shot")))
    return await exported(s)


def plain(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()


def packed(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def changed(data: bytes, change: Change, *, name: str = "") -> bytes:
    """With another manifest; `name` is another one for the first member after it."""
    source, target = tarfile.open(fileobj=io.BytesIO(plain(data))), io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as out:
        for number, info in enumerate(source):
            file = source.extractfile(info)
            assert file
            body = file.read()
            if number == 0:
                body = msgspec.json.encode(change(msgspec.json.decode(body, type=Manifest)))
            if number == 1 and name:
                info = tarfile.TarInfo(name)
            info.size = len(body)
            out.addfile(info, io.BytesIO(body))
        end = out.offset
    return packed(target.getvalue()[:end] + bytes(1024))


def of_snapshot(**fields: Any) -> Change:
    return lambda m: replace(m, snapshot=replace(m.snapshot, **fields))


def test_it_comes_back(saving: Any) -> None:  # noqa: F811
    async def scenario(s: Stage) -> None:
        data = await saved(s)
        with pytest.raises(Conflict, match="the name 'shot' is taken"):
            await imported(s, data)
        await s.call(s.engine.snapshots.remove("shot"))
        await s.call(s.engine.containers.remove("a", force=True))
        await imported(s, data)
        (about,) = s.engine.snapshots.all()
        assert (about.name, about.pod) == ("shot", "a")
        await s.close()
        await s.open()
        await s.call(s.engine.snapshots.restore("shot", RestoreRequest(name="b")))
        assert s.status("b") == "running"
        await imported(s, await exported(s), "again")
        await s.call(s.engine.snapshots.remove("shot"))
        await s.call(s.engine.snapshots.remove("again"))

    saving(scenario)


def test_one_of_layers_becomes_whole(saving: Any) -> None:  # noqa: F811
    async def scenario(s: Stage) -> None:
        await saved(s)
        await s.call(s.engine.snapshots.create(SnapshotRequest(pod="a", name="next")))
        assert s.engine.snapshots.info("next").parent
        data = await exported(s, "next")
        await imported(s, data, "other")
        (directory,) = (s.paths.snapshots / i.id for i in s.engine.snapshots.all() if i.name == "other")
        assert not [p for p in directory.iterdir() if p.suffix == ".1"]
        assert s.engine.snapshots.info("other").parent == ""
        await s.call(s.engine.snapshots.restore("other", RestoreRequest(name="b")))
        for name in ("shot", "next", "other"):
            await s.call(s.engine.snapshots.remove(name))

    saving(scenario)


def test_secrets_are_encrypted_anew(saving: Any) -> None:  # noqa: F811
    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan(spec("b"), secrets={"key": b"open sesame"})))
        await s.call(s.engine.pods.start("pod"))
        await s.call(s.engine.snapshots.create(SnapshotRequest(pod="pod", name="shot")))
        data = await exported(s)
        assert b"open sesame" not in data
        await s.call(s.engine.snapshots.remove("shot"))
        await s.call(s.engine.pods.remove("pod", force=True))
        (s.paths.keys / "secrets.key").unlink()
        await s.close()
        await s.open()
        await imported(s, data)
        await s.call(s.engine.snapshots.restore("shot", RestoreRequest(name="other")))
        pod = s.engine.registry.pod("other")
        assert s.engine.transfers._secrets.get(pod.id, "key") == b"open sesame"
        await s.call(s.engine.snapshots.remove("shot"))

    saving(scenario)


_REFUSED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda d: b"", "cut off"),
    "no archive": (lambda d: b"x" * 5000, "damaged, or none of a snapshot"),
    "less than nothing": (
        lambda d: packed(packing._header("manifest.json", -1) + bytes(1 << 22)),
        "less than no bytes",
    ),
    "no tar": (lambda d: packed(b"x" * 5000), "is of no snapshot"),
    "cut off": (lambda d: d[: len(d) // 2], "cut off|damaged"),
    "cut off in its tar": (lambda d: packed(plain(d)[:-2000]), "cut off"),
    "a changed byte": (lambda d: packed(_flipped(plain(d))), "is not what was saved"),
    "something behind it": (lambda d: packed(plain(d) + b"x"), "something follows"),
    "no manifest": (lambda d: packed(_without_first(plain(d))), "in the place of"),
    "a way out": (lambda d: changed(d, lambda m: m, name="../../x"), "has '../../x' in the place of"),
    "a way out by the manifest": (lambda d: changed(d, _renamed, name="../../x"), "is of no snapshot"),
    "a newer one": (lambda d: changed(d, lambda m: replace(m, version=9)), "newer hyperd"),
    "a bomb": (lambda d: changed(d, _huge), "more than there is room for"),
    "a disk elsewhere": (lambda d: changed(d, of_snapshot(disks={"x": "../../../etc/passwd"})), "no saved pod has"),
    "an id that is none": (lambda d: changed(d, of_snapshot(id="../x")), "an id is none"),
    "no images": (lambda d: changed(d, lambda m: replace(m, images=[])), "does not name the images"),
}


def _flipped(data: bytes) -> bytes:
    """In what the last member has, which is followed by two blocks of zeros and by its padding."""
    at = len(data.rstrip(b"\0")) - 1
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _without_first(data: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data)) as source:
        _, second, *_ = source.getmembers()
    return data[second.offset :]


def _renamed(m: Manifest) -> Manifest:
    first, *others = m.members
    return replace(m, members=[replace(first, name="../../x"), *others])


def _huge(m: Manifest) -> Manifest:
    part = packing.Part(at=0, size=1 << 49)
    return replace(m, members=[replace(x, size=1 << 49, parts=[part]) if x.name.startswith("disk-") else x
                               for x in m.members])  # fmt: skip


def test_what_is_refused_leaves_nothing(saving: Any) -> None:  # noqa: F811
    async def scenario(s: Stage) -> None:
        data = await saved(s)
        before = sorted(s.paths.snapshots.iterdir())
        for what, (change, why) in _REFUSED.items():
            with pytest.raises(HyperError) as refused:
                await imported(s, change(data), "again")
            assert re.search(why, str(refused.value)), (what, refused.value)
            assert sorted(s.paths.snapshots.iterdir()) == before, what
        await imported(s, changed(data, lambda m: m), "again")
        await s.call(s.engine.snapshots.remove("again"))
        await s.call(s.engine.snapshots.remove("shot"))

    saving(scenario)


def test_another_host_is_told(saving: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    async def scenario(s: Stage) -> None:
        data = await saved(s)
        with monkeypatch.context() as patch:
            patch.setattr(SavingDriver, "version", "2")
            with pytest.raises(InvalidState, match="its fake was 1, this one is 2"):
                await imported(s, data, "again")
        other = changed(data, lambda m: replace(m, images=[replace(m.images[0], digest="0" * 64)]))
        with pytest.raises(InvalidState, match="disk of the image .*box.* is another here"):
            await imported(s, other, "again")
        member = Principal(name="token:m", scopes=frozenset({"read", "operate"}))
        with asked_by(member), pytest.raises(PermissionDenied, match="takes the scope `host`"):
            await s.engine.transfers.import_(_nothing(), "again")
        with pytest.raises(NotFound):
            await exported(s, "nobody")
        await s.call(s.engine.snapshots.remove("shot"))

    saving(scenario)


def test_a_client_that_goes_leaves_nothing(saving: Any) -> None:  # noqa: F811
    async def scenario(s: Stage) -> None:
        data = await saved(s)
        stuck = asyncio.Event()

        async def pieces() -> AsyncIterator[bytes]:
            yield data[: len(data) // 2]
            stuck.set()
            await asyncio.Event().wait()

        assert s.daemon
        task = s.daemon.call(s.engine.transfers.import_(pieces(), "again"))
        await stuck.wait()
        task.cancel()
        await asyncio.wait([task])
        assert len(list(s.paths.snapshots.iterdir())) == 1
        await s.call(s.engine.snapshots.remove("shot"))

    saving(scenario)


def test_a_client_that_is_silent(saving: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(transfers, "_SILENCE", 0.1)

    async def scenario(s: Stage) -> None:
        data = await saved(s)

        async def pieces() -> AsyncIterator[bytes]:
            yield data[: len(data) // 2]
            await asyncio.Event().wait()

        with pytest.raises(InvalidArgument, match="cut off"):
            await s.call(s.engine.transfers.import_(pieces(), "again"))
        assert len(list(s.paths.snapshots.iterdir())) == 1
        await s.call(s.engine.snapshots.remove("shot"))

    saving(scenario)


def test_holes_stay_holes(tmp_path: Path) -> None:
    """An archive has what is not zero; so has the file that comes of it."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    with open(source / "memory", "wb") as file:
        os.ftruncate(file.fileno(), 1 << 34)
        for at in (0, 5 << 20, (5 << 20) + 8192, (1 << 34) - 4096):
            os.pwrite(file.fileno(), b"here", at)
    member = describe(source / "memory")
    assert [(p.at, p.size) for p in member.parts] == [(0, 4096), (5 << 20, 12288), ((1 << 34) - 4096, 4096)]
    unpacking = Unpacking(io.BytesIO(b"".join(_pack_one(source, member))))
    unpacking.files([member], target)
    assert describe(target / "memory") == member
    assert os.stat(target / "memory").st_blocks * 512 < 1 << 20
    with pytest.raises(InvalidArgument, match="cut off"):
        Unpacking(io.BytesIO(b"".join(_pack_one(source, member))[:40])).files([member], tmp_path)


def _pack_one(directory: Path, member: packing.Member) -> list[bytes]:
    """An archive without a manifest."""
    with Layered(directory / member.name) as file:
        body = b"".join(piece for part in member.parts for piece in packing._read(file, part))
    return [packed(packing._header(member.name, member.stored) + body + packing._padding(member.stored) + bytes(1024))]
