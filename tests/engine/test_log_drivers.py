# SPDX-License-Identifier: Apache-2.0
"""Where output goes by `--log-driver`, and what `logs` and `attach` can read of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.engine.attach.session import AttachOptions
from hypercontainer.engine.log_sinks import journald, sender
from hypercontainer.errors import InvalidState, Unsupported
from hypercontainer.model.specs import LogOptions

from .scenes import plan, spec
from .stage import Stage, play, stage, whole


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What systemd's would be."""
    path = tmp_path / "j"
    monkeypatch.setattr(journald, "SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(str(path))
        yield sock


def entries(journal: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(journal.recv(1 << 20))
        except BlockingIOError:
            return found


async def logged(s: Stage, key: str) -> list[str]:
    batches = s.engine.logs(key, tail=None, since="", until="", follow=False)
    return [r.log async for batch in batches for r in batch]


async def ran(s: Stage, name: str, *command: str, log: LogOptions) -> None:
    await s.run(name, *command, log=log)
    await s.call(s.engine.containers.wait(name))


def test_the_journal_has_it_and_this_host_a_copy(template: Path, journal: socket.socket) -> None:
    async def scenario(s: Stage) -> None:
        await ran(s, "box", "echo", "hello", log=LogOptions(driver="journald", options={"tag": "{{.Name}}/x"}))
        await asyncio.sleep(1)
        (entry,) = entries(journal)
        id_ = s.engine.registry.container("box").id
        for line in (
            b"MESSAGE=hello", b"PRIORITY=6", b"CONTAINER_NAME=box", b"CONTAINER_TAG=box/x",
            f"CONTAINER_ID_FULL={id_}".encode(), b"IMAGE_NAME=docker.io/library/box:latest",
        ):  # fmt: skip
            assert line in entry.split(b"\n")
        assert await logged(s, "box") == ["hello\n"]

    with stage(template) as s:
        play(s, whole(scenario))


def test_a_journal_that_is_gone_holds_nobody_back(
    template: Path, journal: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "_WAITS_MAX", 10_000)

    async def scenario(s: Stage) -> None:
        await s.create("box", "flood", "3000000", log=LogOptions(driver="journald", max_size=1 << 30))
        (tmp_path / "j").rename(tmp_path / "away")
        await s.call(s.engine.containers.start("box"))
        assert await s.call(s.engine.containers.wait("box")) == 0
        assert sum(map(len, await logged(s, "box"))) > 2_900_000

    with stage(template) as s:
        play(s, whole(scenario))


@pytest.mark.parametrize(
    "log", [LogOptions(driver="none"), LogOptions(driver="journald", options={"cache-disabled": "true"})]
)
def test_what_is_not_kept_cannot_be_read(template: Path, journal: socket.socket, log: LogOptions) -> None:
    async def scenario(s: Stage) -> None:
        await ran(s, "box", "echo", "hello", log=log)
        for use in (
            lambda: logged(s, "box"),
            lambda: asyncio.sleep(0, s.engine.attachments.container("box", AttachOptions(logs=True, stream=False))),
        ):
            with pytest.raises(Unsupported, match="container box has no log that can be read"):
                await use()
        await asyncio.sleep(1)
        assert len(entries(journal)) == (log.driver == "journald")

    with stage(template) as s:
        play(s, whole(scenario))


def test_the_kubelets_file_is_reopened_when_it_was_moved(template: Path, tmp_path: Path) -> None:
    path = tmp_path / "0.log"

    async def scenario(s: Stage) -> None:
        await ran(s, "first", "echo", "hello", log=LogOptions(driver="k8s-file", path=str(path)))
        assert path.read_text().endswith("Z stdout F hello\n") and await logged(s, "first") == ["hello\n"]
        with pytest.raises(InvalidState, match="first is not running"):
            s.engine.containers.reopen_log("first")
        await s.run("box", "sleep", "1000", log=LogOptions(driver="k8s-file", path=str(path)))
        path.rename(tmp_path / "0.log.old")
        s.engine.containers.reopen_log("box")
        assert path.read_bytes() == b"" and await logged(s, "box") == []

    with stage(template) as s:
        play(s, whole(scenario))


def test_the_daemons_default(template: Path, journal: socket.socket) -> None:
    """Of a container that says nothing, one that only has an option, and a pod's; another driver has none of it."""
    default = LogOptions(driver="journald", options={"tag": "all"})

    async def scenario(s: Stage) -> None:
        await ran(s, "plain", "echo", "one", log=LogOptions())
        await ran(s, "own", "echo", "two", log=LogOptions(options={"tag": "mine"}))
        await ran(s, "file", "echo", "three", log=LogOptions(driver="json-file"))
        await s.call(s.engine.pods.create(plan(spec("member", "echo", "four"))))
        await asyncio.sleep(1)
        told = [[line for line in e.split(b"\n") if line.startswith((b"MESSAGE", b"CONTAINER_TAG"))] for e in
                entries(journal)]  # fmt: skip
        assert sorted(sorted(t) for t in told) == [
            [b"CONTAINER_TAG=all", b"MESSAGE=one"], [b"CONTAINER_TAG=mine", b"MESSAGE=two"]
        ]  # fmt: skip
        assert s.engine.registry.container("member").spec.log == default
        assert s.engine.registry.container("file").spec.log == LogOptions(driver="json-file")
        assert (await s.call(s.engine.info())).log == default

    with stage(template, log=default) as s:
        play(s, whole(scenario))
