# SPDX-License-Identifier: Apache-2.0
"""hyperjail-memory: the memory of a machine, out of its hypervisor's process. This one stands for it."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
from collections.abc import Iterator

import pytest

from hypercontainer.jail.binaries import binary

PAGE = mmap.PAGESIZE
PAGES = 3 * 4096 + 5  # more than the program looks at at once, and no multiple of that
SIZE = PAGES * PAGE
LIMIT = 60


def address_of(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def page(letter: str) -> bytes:
    return letter.encode() * PAGE


@pytest.fixture
def target() -> Iterator[int]:
    fd = os.memfd_create("target")
    os.ftruncate(fd, SIZE)
    yield fd
    os.close(fd)


@pytest.fixture
def base() -> Iterator[int]:
    fd = os.memfd_create("base")
    os.ftruncate(fd, SIZE)
    yield fd
    os.close(fd)


def copy(target: int, address: int, base: int = -1, size: int = SIZE) -> subprocess.CompletedProcess[bytes]:
    files = [os.open(f"/proc/self/{name}", os.O_RDONLY) for name in ("mem", "pagemap")]
    try:
        args = [*files, base, target, address, size]
        return subprocess.run(
            [binary("hyperjail-memory"), *map(str, args)], pass_fds=[fd for fd in (*files, base, target) if fd >= 0],
            capture_output=True, timeout=LIMIT, check=False,
        )  # fmt: skip
    finally:
        for fd in files:
            os.close(fd)


def pages(fd: int) -> dict[int, bytes]:
    """Those that the file has, by their numbers."""
    found, at = {}, 0
    while True:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return found
        found[at // PAGE] = os.pread(fd, PAGE, at)
        at += PAGE


def test_memory_of_its_own(target: int) -> None:
    """What is written is copied; what is not, or all zeros, is a hole."""
    written = {0: page("a"), 1: page("b"), 4095: page("c"), 4096: page("d"), 9000: page("e"), PAGES - 1: page("f")}
    with mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for number, what in written.items():
            memory[number * PAGE : (number + 1) * PAGE] = what
        memory[7 * PAGE : 9 * PAGE] = bytes(2 * PAGE)
        assert memory[11 * PAGE] == 0  # read, never written
        assert copy(target, address_of(memory)).stderr == b""
    assert pages(target) == written


def test_memory_over_a_file(target: int, base: int) -> None:
    """Of the file comes what was not written since, also where the process never looked; its holes stay holes."""
    for number, letter in ((0, "A"), (1, "B"), (5, "C"), (4097, "D"), (PAGES - 1, "E")):
        os.pwrite(base, page(letter), number * PAGE)
    with mmap.mmap(base, SIZE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as memory:
        assert memory[0] == ord("A")
        memory[PAGE : 2 * PAGE] = page("b")
        memory[3 * PAGE : 4 * PAGE] = page("x")
        memory[5 * PAGE : 6 * PAGE] = bytes(PAGE)  # it was freed, say
        assert copy(target, address_of(memory), base).stderr == b""
    assert pages(target) == {0: page("A"), 1: page("b"), 3: page("x"), 4097: page("D"), PAGES - 1: page("E")}
    assert sorted(pages(base)) == [0, 1, 3, 5, 4097, PAGES - 1]  # 3: the kernel copies from there when that is written


@pytest.mark.parametrize(("offset", "size"), [(1, SIZE), (0, PAGE + 1), (0, 0)])
def test_what_is_no_memory(target: int, offset: int, size: int) -> None:
    with mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        done = copy(target, address_of(memory) + offset, size=size)
    assert (done.returncode, done.stderr) == (1, b"memory consists of pages\n")


def test_what_cannot_be_read(target: int) -> None:
    """Its process has ended meanwhile, say."""
    with subprocess.Popen(["sleep", "1000"]) as other:
        mem, pagemap = (os.open(f"/proc/{other.pid}/{name}", os.O_RDONLY) for name in ("mem", "pagemap"))
        other.kill()
    try:
        args = [binary("hyperjail-memory"), *map(str, (mem, pagemap, -1, target, PAGE, SIZE))]
        fds = (mem, pagemap, target)
        done = subprocess.run(args, pass_fds=fds, capture_output=True, timeout=LIMIT, check=False)
        assert (done.returncode, done.stderr) == (1, b"the page map cannot be read: it ends\n")
    finally:
        os.close(mem)
        os.close(pagemap)
