# SPDX-License-Identifier: Apache-2.0
"""Copies out of and into containers, and what a container has changed: what is shown, and what a guest cannot do."""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hypercontainer.engine import archive
from hypercontainer.errors import GuestError, HyperError, NotFound, Unavailable
from hypercontainer.model.specs import InjectedFile, Mount
from hypercontainer.protocol.constants import Builtin

from .stage import Stage
from .test_verbs import packed


async def everything(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([c async for c in chunks])


def test_changes_are_told_without_what_was_made_to_mount_something(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", mounts=[Mount(target="/srv/deep/data", type="tmpfs"), Mount(target="/only", type="tmpfs")])
        guest = s.guest(s.machine("a"))
        guest.containers[s.engine.registry.container("a").id[:12]].changes = [
            "C /etc", "A /etc/hosts", "A /etc/mine", "C /srv", "A /srv/deep", "A /srv/deep/data", "A /only", "D /bin/x",
            "C /bin", "A /srv/\N{SNOWMAN}", "A /proc", "A /srv/deep/else",
        ]  # fmt: skip
        found = [f"{c.kind} {c.path}" for c in await s.call(s.engine.archives.changes("a"))]
        assert found == [
            "C /bin", "D /bin/x", "C /etc", "A /etc/mine", "C /srv", "A /srv/deep", "A /srv/deep/else",
            "A /srv/\N{SNOWMAN}",
        ]  # fmt: skip

    act(scenario)


def test_more_changes_than_can_be_listed(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_CHANGES_MAX", 1000)

    async def scenario(s: Stage) -> None:
        await s.run("a")
        container = s.guest(s.machine("a")).containers[s.engine.registry.container("a").id[:12]]
        container.changes = [f"A /{n}" for n in range(1000)]
        with pytest.raises(GuestError, match="container a has changed too much to be listed"):
            await s.call(s.engine.archives.changes("a"))
        assert s.status("a") == "running"

    act(scenario)


@pytest.mark.parametrize(
    ("status", "words", "error", "says"),
    [
        (2, "no", NotFound, "no such path in the container: /x"),
        (1, "first\nread: I/O error\n", GuestError, "copying /x failed: read: I/O error"),
        (3, "", GuestError, "copying /x failed: status 3"),
    ],
)
@pytest.mark.parametrize("runs", [True, False])
def test_a_copy_that_fails_says_why(act: Any, status: int, words: str, error: Any, says: str, runs: bool) -> None:
    async def scenario(s: Stage) -> None:
        await s.create("a")
        if runs:
            await s.call(s.engine.containers.start("a"))
        s.failing |= dict.fromkeys((Builtin.TAR_CREATE, Builtin.TAR_EXTRACT, Builtin.EXPORT), (status, words))
        archives = s.engine.archives
        for verb in (
            archives.stat("a", "/x"), everything(archives.read("a", "/x", follow=False)),
            archives.write("a", "/x", packed(y=b"1")),
        ):  # fmt: skip
            with pytest.raises(error, match=says):
                await s.call(verb)
        assert s.status("a") == ("running" if runs else "created") and len(s.host.machines) == runs

    act(scenario)


def test_what_there_is_at_a_path_is_told_of_its_first_entry(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "x" * 9, files=[InjectedFile(target="/x", content=b"1")], entrypoint=["sleep", "1000"])
        with pytest.raises(GuestError, match="an empty archive"):  # no guest of ours says that
            await s.call(s.engine.archives.stat("a", "/srv"))
        files = s.guest(s.machine("a")).containers[s.engine.registry.container("a").id[:12]].files
        files["/long"] = b"z" * 100_000
        assert (await s.call(s.engine.archives.stat("a", "/long"))).size == 100_000
        monkeypatch.setattr(archive, "_HEAD_MAX", 1000)
        monkeypatch.setattr(tarfile.TarFile, "next", lambda self: None)  # an entry that does not end
        with pytest.raises(GuestError, match="an empty archive"):
            await s.call(s.engine.archives.stat("a", "/long"))

    act(scenario)


def test_files_that_cannot_be_put_into_a_container_end_its_start(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        s.failing[Builtin.TAR_EXTRACT] = (1, "disk full")
        await s.create("a", files=[InjectedFile(target="/x", content=b"1")])
        with pytest.raises(Unavailable, match="the files of container a could not be written: disk full"):
            await s.call(s.engine.containers.start("a"))
        assert s.status("a") == "exited" and not s.host.machines
        s.failing.clear()

    act(scenario)


def test_a_volume_that_the_guest_cannot_mount_ends_the_start(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        s.failing[Builtin.MOUNT] = (1, "mount: Invalid argument")
        await s.create("a", mounts=[Mount(target="/data", source="vol")])
        with pytest.raises(GuestError, match="volume vol: mount: Invalid argument"):
            await s.call(s.engine.containers.start("a"))
        s.failing.clear()
        await s.call(s.engine.containers.start("a"))
        assert s.status("a") == "running"

    act(scenario)


def test_a_container_is_removed_by_force_while_its_files_are_copied(act: Any) -> None:
    """Its machine is there for the copy alone, and ends with it; without force the copy comes first."""

    async def scenario(s: Stage) -> None:
        await s.create("a")
        held = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"\0" * 512
            await held.wait()

        assert s.daemon
        copy = s.daemon.call(s.engine.archives.write("a", "/srv", slow()))
        await asyncio.sleep(5)
        assert len(s.host.machines) == 1
        polite = s.daemon.call(s.engine.containers.remove("a"))
        await asyncio.sleep(1)
        assert not polite.done()
        await s.call(s.engine.containers.remove("a", force=True))
        assert not s.host.machines
        held.set()
        await asyncio.wait([copy, polite])
        assert isinstance(copy.exception(), HyperError)
        assert polite.exception() is None or isinstance(polite.exception(), NotFound)

    act(scenario)
