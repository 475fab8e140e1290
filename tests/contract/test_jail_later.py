# SPDX-License-Identifier: Apache-2.0
"""What a program in a jail is shown while it runs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.errors import Unavailable, Unsupported
from hypercontainer.jail.hyperjail import HyperJail
from hypercontainer.jail.jail import Entry, Started
from hypercontainer.jail.plain import PlainJail

from .test_jail import Output, ended, output, shell

__all__ = ["output"]

# It waits until it is told, writes where it may, and tells what it was refused.
_SCRIPT = """
read go
read word </late/files/word
read single </late/single
echo "$word $single"
echo written >/late/files/new && echo could
{ echo no >/late/kept/new; } 2>/dev/null || echo could not
{ echo no >/late/new; } 2>/dev/null || echo not there either
"""


class Input:
    """What a program waits for."""

    def __init__(self) -> None:
        self.fd, self._ours = os.pipe()

    def go(self) -> None:
        os.write(self._ours, b"go\n")

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._ours)


@pytest.fixture
def told() -> Iterator[Input]:
    made = Input()
    yield made
    made.close()


@pytest.fixture
def jail(tmp_path: Path) -> HyperJail:
    found = HyperJail(tmp_path / "jail")
    if os.geteuid() or found.hindrance():
        pytest.skip("this takes root, and a jail")
    return found


async def test_files_and_directories_are_shown_to_a_program_that_runs(
    jail: HyperJail, output: Output, told: Input, tmp_path: Path
) -> None:
    for name in ("files", "kept"):
        (tmp_path / name).mkdir(mode=0o777)
        (tmp_path / name).chmod(0o777)
    (tmp_path / "single").write_text("one\n")
    started = await jail.spawn(shell(_SCRIPT, output, late="/late", input=told.fd))
    await jail.add(started, Entry(tmp_path / "kept", "/late/kept"))
    await jail.add(started, Entry(tmp_path / "single", "/late/single"))
    await jail.add(started, Entry(tmp_path / "files", "/late/files", writable=True))
    assert str(tmp_path / "files") not in subprocess.run(["findmnt", "-rno", "TARGET"], capture_output=True, text=True,
                                                         check=True).stdout  # fmt: skip
    (tmp_path / "files/word").write_text("hello\n")
    told.go()
    assert ended(started) == 0
    assert output.text() == "hello one\ncould\ncould not\nnot there either\n"
    assert (tmp_path / "files/new").read_text() == "written\n" and not any((tmp_path / "kept").iterdir())


async def test_they_are_shown_no_longer(jail: HyperJail, output: Output, told: Input, tmp_path: Path) -> None:
    """Nor are their places there; those of others stay. What is not there any more is no error."""
    for name in ("gone", "kept"):
        (tmp_path / name).mkdir()
    (tmp_path / "single").write_text("one\n")
    script = "read go; for x in /late/*; do echo $x; done"
    started = await jail.spawn(shell(script, output, late="/late", input=told.fd))
    for name in ("gone", "kept", "single"):
        await jail.add(started, Entry(tmp_path / name, f"/late/{name}"))
    for _ in range(2):
        for name in ("gone", "single"):
            await jail.remove(started, f"/late/{name}")
    assert str(tmp_path / "gone") not in Path(f"/proc/{started.pid}/mountinfo").read_text()
    told.go()
    assert ended(started) == 0
    assert output.text() == "/late/kept\n" and (tmp_path / "single").exists()


async def test_a_mount_below_it_is_restricted_as_well(
    jail: HyperJail, output: Output, told: Input, tmp_path: Path
) -> None:
    (tmp_path / "all/below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "none", tmp_path / "all/below"], check=True)
    try:
        script = "read go; read word </late/all/below/word && echo no >/late/all/below/new; exit 0"
        started = await jail.spawn(shell(script, output, late="/late", input=told.fd))
        await jail.add(started, Entry(tmp_path / "all", "/late/all"))
        (tmp_path / "all/below/word").write_text("hello\n")
        told.go()
        assert ended(started) == 0
        assert not (tmp_path / "all/below/new").exists() and "Read-only" in output.text()
    finally:
        subprocess.run(["umount", tmp_path / "all/below"], check=True)


async def test_a_mount_of_the_host_is_put_over_what_is_there(
    jail: HyperJail, output: Output, told: Input, tmp_path: Path
) -> None:
    """And is taken away; the host's own can be unmounted meanwhile, and who writes there cannot lead it elsewhere."""
    for name in ("all/deep/below", "all/plain", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    started = await jail.spawn(shell("read go", output, late="/late", input=told.fd))
    await jail.add(started, Entry(tmp_path / "all", "/late/all", writable=True))
    below, shown = tmp_path / "all/deep/below", Path(f"/proc/{started.pid}/root/late/all/deep/below")
    subprocess.run(["mount", "-t", "tmpfs", "none", below], check=True)
    try:
        (below / "word").write_text("hello\n")
        await jail.cover(started, Entry(below, "/late/all/deep/below"))
        (line,) = [x for x in Path(f"/proc/{started.pid}/mountinfo").read_text().splitlines() if "/below " in x]
        assert {"ro", "nosuid", "nodev"} <= set(line.split()[5].split(","))
        with pytest.raises(Unavailable, match="cannot find a mount at"):
            await jail.cover(started, Entry(tmp_path / "all/plain", "/late/all/plain"))
        (tmp_path / "all/link").symlink_to(tmp_path / "all/deep")
        for source, target in ((tmp_path / "all/link/below", "/late/all/plain"), (below, "/late/all/link/below")):
            with pytest.raises(Unavailable, match="link"):
                await jail.cover(started, Entry(source, target))
        with pytest.raises(Unavailable, match="link"):
            await jail.uncover(started, "/late/all/link/below")
    finally:
        subprocess.run(["umount", below], check=True)
    assert os.listdir(shown) == ["word"]
    for _ in range(2):
        await jail.uncover(started, "/late/all/deep/below")
    await jail.uncover(started, "/late/all/gone/below")
    assert os.listdir(shown) == []
    told.go()
    assert ended(started) == 0


async def test_what_cannot_be_shown_is_said(jail: HyperJail, output: Output, told: Input, tmp_path: Path) -> None:
    started = await jail.spawn(shell("exit 0", output, late="/late"))
    assert ended(started) == 0
    with pytest.raises(Unavailable, match="has ended"):
        await jail.add(started, Entry(tmp_path, "/late/x"))
    running = await jail.spawn(shell("read go", output, late="/late", input=told.fd))
    try:
        with pytest.raises(Unavailable, match=f"cannot open {tmp_path}/none: No such file"):
            await jail.add(running, Entry(tmp_path / "none", "/late/x"))
        with pytest.raises(Unavailable, match="cannot make the directory /elsewhere/x"):
            await jail.add(running, Entry(tmp_path, "/elsewhere/x"))
        with pytest.raises(Unavailable, match="has ended"):
            await jail.add(Started(running.pid, running.started + 1), Entry(tmp_path, "/late/x"))
    finally:
        os.kill(running.pid, 9)
        ended(running)


async def test_without_a_jail_nothing_is_shown(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="without a jail"):
        await PlainJail().add(Started(os.getpid(), 1), Entry(tmp_path, "/late/x"))
    with pytest.raises(Unsupported, match="without a jail"):
        await PlainJail().remove(Started(os.getpid(), 1), "/late/x")
    with pytest.raises(Unsupported, match="without a jail"):
        await PlainJail().cover(Started(os.getpid(), 1), Entry(tmp_path, "/late/x"))
