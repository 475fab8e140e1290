# SPDX-License-Identifier: Apache-2.0
"""Helpers by the jail: they see what they are handed, end with the block, and their words come through."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hypercontainer.errors import InvalidArgument, Unavailable
from hypercontainer.images.limits import Limits
from hypercontainer.images.progress import Progress
from hypercontainer.images.store import ImageStore
from hypercontainer.images.worker import CALLS
from hypercontainer.jail import helpers, seccomp
from hypercontainer.jail.hyperjail import HyperJail
from hypercontainer.jail.jail import Jail, Order
from hypercontainer.jail.plain import PlainJail
from hypercontainer.sys import process
from hypercontainer.volumes.scratch import ScratchDisks
from hypercontainer.volumes.tools import run_tool
from tests.registry import serving
from tests.unit.layouts import END, Maker, header

from .test_jail import SHELL, children


@pytest.fixture(params=["hyperjail", "plain"])
def jail(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Jail]:
    made: dict[str, Callable[[], Jail]] = {"hyperjail": lambda: HyperJail(tmp_path / "jail"), "plain": PlainJail}
    found = made[request.param]()
    if why := found.hindrance():
        pytest.skip(f"this host has no jail: {why}")
    before = helpers.jail()
    helpers.use(found)
    yield found
    helpers.use(before)


def shell(script: str) -> Order:
    return helpers.order(SHELL, "-c", script)


@pytest.mark.parametrize("stdin", [b"", b"a line\n" * 5000])
async def test_input_output_errors_and_status(jail: Jail, stdin: bytes) -> None:
    done = await helpers.run(shell('while read x; do echo "$x"; done; echo bad >&2; exit 3'), stdin)
    assert (done.status, done.stdout, done.stderr) == (3, stdin.decode(), "bad\n")


async def test_of_many_complaints_the_last_are_kept(jail: Jail) -> None:
    script = "i=0; while [ $i -lt 5000 ]; do echo complaint $i >&2; i=$((i + 1)); done"
    done = await helpers.run(shell(script))
    assert done.stderr.endswith("complaint 4999\n") and len(done.stderr) <= 1 << 16


async def test_complaints_as_they_come(jail: Jail) -> None:
    """Each line is heard while the helper runs on; what it prints is kept instead."""
    script = 'echo printed; i=0; while read x; do i=$((i + 1)); echo "complaint $i" >&2; done; while :; do :; done'
    async with helpers.running(shell(script), b"\n" * 3, complaints=True) as helper:
        assert [await helper.output.readline() for _ in range(3)] == [b"complaint %d\n" % n for n in (1, 2, 3)]
    assert helper.errors == "printed\n"


async def test_it_is_gone_with_the_block(jail: Jail) -> None:
    async with helpers.running(shell("echo $$; while :; do :; done")) as helper:
        await helper.output.readline()
        pid = helper.pid
        started = process.start_time(pid)
        assert started
    assert process.start_time(pid) != started
    assert await helper.wait() == -signal.SIGKILL


async def test_who_gives_up_leaves_nothing(jail: Jail) -> None:
    before = children()
    task = asyncio.ensure_future(helpers.run(shell("while :; do :; done")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == before


async def test_what_is_not_installed_is_told() -> None:
    with pytest.raises(Unavailable, match="nothing-of-that-name is not installed"):
        helpers.find("nothing-of-that-name")


async def test_a_scratch_disk_is_made(jail: Jail, tmp_path: Path) -> None:
    await ScratchDisks(tmp_path / "cache", 64 << 20).create(tmp_path / "disk")
    said = await run_tool("debugfs", "e2fsprogs", "-R", "ls -l /", tmp_path / "disk")
    assert "lost+found" not in said
    (template,) = (tmp_path / "cache").iterdir()
    assert (template.stat().st_uid, template.stat().st_mode & 0o777) == (os.geteuid(), 0o600)
    with open(tmp_path / "disk", "rb") as f:
        f.seek(0x438)
        assert f.read(2) == b"\x53\xef"  # s_magic of ext4


async def test_what_a_tool_complains_of_is_told(jail: Jail, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(bytes(1 << 16))
    with pytest.raises(Unavailable, match="mkfs.xfs failed: .*"):
        await run_tool("mkfs.xfs", "xfsprogs", "-q", tmp_path / "small")
    assert (tmp_path / "small").stat().st_uid == os.geteuid()


def test_refusals_name_calls_that_there_are() -> None:
    for machine in ("x86_64", "aarch64"):
        assert len(seccomp.refusals(machine=machine)) % 8 == 0
        assert len(seccomp.refusals(machine=machine)) // 8 < 1024


async def test_an_image_is_converted(jail: Jail, tmp_path: Path) -> None:
    """By a worker that has its filter; whose own errors come through too."""
    make = Maker(tmp_path / "layout")
    source = make.image(make.layer(iter([header("d", b"5"), END])), make.layer(iter([header("e", b"5"), END])))
    store = ImageStore(tmp_path / "images")
    store.open()
    await store.pull(source)[1]
    store = ImageStore(tmp_path / "small", limits=dataclasses.replace(Limits(), files=1))
    store.open()
    with pytest.raises(InvalidArgument, match="is refused"):
        await store.pull(source)[1]


async def test_an_image_is_pushed(jail: Jail, tmp_path: Path) -> None:
    """By a skopeo that remembers, by a file that comes and goes with it, which repository has a layer already."""
    make = Maker(tmp_path / "layout")
    layer = make.layer(iter([header("d", b"5"), END]))
    store = ImageStore(tmp_path / "images")
    store.open()
    image = await store.pull(make.image(layer))[1]
    theirs = ImageStore(tmp_path / "images", tenant=lambda: "blue")  # a project's, which nothing is told of the others
    theirs.open()
    await theirs.pull(make.image(layer))[1]
    told = []
    with serving(tmp_path) as registry:
        for repository, of in (("one", store), ("two", store), ("three", theirs)):
            of.tag(image.id, f"{registry.address}/{repository}:1")
            progress = Progress()
            await of.push(f"{registry.address}/{repository}:1", progress)
            progress.finish()
            told.append({u["id"]: u["status"] async for u in progress.listen()}[layer[0]])
    assert told == ["Pushed", "Mounted from one", "Pushed" if jail.confines else "Layer already exists"]
    assert list((tmp_path / "images/staging").iterdir()) == []
    kept = [(p.stat().st_uid, p.stat().st_mode & 0o777) for p in (tmp_path / "images/pushed").iterdir()]
    assert kept == ([(os.geteuid(), 0o600)] if jail.confines else [])


def test_the_list_of_the_workers_calls() -> None:
    granted = [r.name for r in seccomp.read(CALLS) if not r.missing]
    assert len(granted) <= 60
    forbidden = ("open", "connect", "ptrace", "bpf", "io_uring", "keyctl", "mount", "execve", "fork", "socket", "kill")
    assert [name for name in granted if name.startswith(forbidden)] == []
