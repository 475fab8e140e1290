# SPDX-License-Identifier: Apache-2.0
"""A program in QEMU's place tries to get out of the jail: nothing works, without the filter of system calls neither."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hypercontainer.hypervisor.qemu.confinement import CALLS, ENVIRONMENT
from hypercontainer.images import conversion, transport
from hypercontainer.images.limits import Limits
from hypercontainer.images.worker import Job
from hypercontainer.jail import helpers, seccomp
from hypercontainer.jail.hyperjail import HyperJail
from hypercontainer.jail.jail import Entry, Order
from hypercontainer.jail.jail import Limits as JailLimits
from hypercontainer.jail.libraries import libraries
from hypercontainer.model.reference import Source
from hypercontainer.network import passt, plugin
from hypercontainer.sys import users
from hypercontainer.volumes import share

SOURCE = Path(__file__).with_name("escape.c")
FORBIDDEN = ("open", "connect", "ptrace", "bpf", "io_uring", "keyctl", "mount", "execve", "fork", "socket", "kill")
GRANTED = 80
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="as root each hypervisor has a user of its own")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _compiled(SOURCE, tmp_path_factory.mktemp("escape"))


def _compiled(source: Path, directory: Path) -> Path:
    """Linked with the host's libc, as QEMU: the filter is loaded by the dynamic loader."""
    built = directory / source.stem
    zig = (sys.executable, "-m", "ziglang", "cc", "-target", "native-native-gnu", "-D_GNU_SOURCE", "-O1")
    subprocess.run([*zig, "-o", built, source], check=True)
    built.chmod(0o755)
    return built


@dataclass
class Host:
    """What there is to be reached."""

    jail: HyperJail
    values: dict[str, str]
    program: Path
    output: Path

    async def attempt(self, number: int, value: str, *, filtered: bool) -> tuple[str, int]:
        """What it prints, and how it ends."""
        rules = seccomp.program(seccomp.read(CALLS)) if filtered else b""
        with open(self.output, "w+") as output:
            order = Order(
                args=("/escape", str(number), value),
                user=users.pick(),
                output=output.fileno(),
                files=(Entry(self.program, "/escape"), *map(Entry, libraries(self.program))),
                devices=(Path("/dev/null"), Path("/dev/urandom")),
                filter=rules,
            )
            started = await self.jail.spawn(order)
            _, status = await asyncio.to_thread(os.waitpid, started.pid, 0)
            output.seek(0)
            return output.read().strip(), os.waitstatus_to_exitcode(status)

    async def tried(self, order: Order, number: int, value: str) -> tuple[str, int]:
        """The same in the place of this order's program."""
        with open(self.output, "w+") as output:
            shown = (*order.files, Entry(self.program, "/escape"), *map(Entry, libraries(self.program)))
            files = tuple({entry.place: entry for entry in shown}.values())
            args = ("/escape", str(number), value)
            changed = replace(order, args=args, files=files, output=output.fileno(), errors=-1, descriptors=())
            started = await self.jail.spawn(changed)
            _, status = await asyncio.to_thread(os.waitpid, started.pid, 0)
            output.seek(0)
            return output.read().strip(), os.waitstatus_to_exitcode(status)


@pytest.fixture
def host(tmp_path: Path, program: Path) -> Iterator[Host]:
    secret = tmp_path / "secret"
    secret.write_text("of another pod")
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix, socket.socket(socket.AF_UNIX) as abstract:
        tcp.bind(("127.0.0.1", 0))
        path = f"/tmp/escape-{os.getpid()}.sock"
        unix.bind(path)
        os.chmod(path, 0o777)
        abstract.bind(f"\0hyper-test-{os.getpid()}")
        for sock in (tcp, unix, abstract):
            sock.listen()
        values = {"path": str(secret), "pid": str(os.getpid()), "socket": path, "abstract": str(os.getpid()),
                  "port": str(tcp.getsockname()[1]), "none": ""}  # fmt: skip
        try:
            yield Host(HyperJail(tmp_path / "jail"), values, program, tmp_path / "output")
        finally:
            os.unlink(path)


@pytest.mark.parametrize("filtered", [False, True], ids=["by namespaces and users alone", "with the filter too"])
async def test_nothing_works(host: Host, filtered: bool) -> None:
    """Without the filter each attempt is made, and refused; with it most end the process where they begin.

    To open a file to read it does not: it is refused by the filter itself, unlooked at.
    """
    outcomes: dict[str, str] = {}
    for number, (name, kind) in enumerate(attempts(host.program)):
        printed, status = await host.attempt(number, host.values[kind], filtered=filtered)
        outcomes[name] = "killed" if status == -signal.SIGSYS else printed
    print("\n".join(f"{name}: {outcome}" for name, outcome in outcomes.items()))
    assert len(outcomes) >= 40
    assert [name for name, outcome in outcomes.items() if outcome == "worked" or not outcome] == []
    assert not filtered or list(outcomes.values()).count("killed") >= 34


async def test_memory_that_many_threads_give_back(tmp_path: Path) -> None:
    """The libc does it without a call that is not on the list."""
    program = _compiled(SOURCE.with_name("threads.c"), tmp_path)
    with open(tmp_path / "output", "w+") as output:
        order = Order(
            args=("/threads",), user=users.pick(), output=output.fileno(), environment=ENVIRONMENT,
            files=(Entry(program, "/threads"), *map(Entry, libraries(program))),
            devices=(Path("/dev/null"), Path("/dev/urandom")), filter=seccomp.program(seccomp.read(CALLS)),
        )  # fmt: skip
        started = await HyperJail(tmp_path / "jail").spawn(order)
        _, status = await asyncio.to_thread(os.waitpid, started.pid, 0)
        output.seek(0)
        assert (output.read().strip(), os.waitstatus_to_exitcode(status)) == ("done", 0)


_UNWINDER = tuple(Path("/lib").glob("*/libgcc_s.so.1"))  # which QEMU is linked with
SELDOM = {"clocks": 0, "limits": 0, "threads": 0, "cancelled": 0, "texts": 0, "files": 0, "newer": 0,
          "aborts": -signal.SIGSEGV}  # fmt: skip


@pytest.fixture(scope="module")
def seldom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _compiled(SOURCE.with_name("seldom.c"), tmp_path_factory.mktemp("seldom"))


@pytest.mark.parametrize("case", SELDOM)
async def test_what_libraries_do_seldom_ends_nothing(tmp_path: Path, seldom: Path, case: str) -> None:
    """A call that fails is told so; the filter's death is for those that no library makes."""
    with open(tmp_path / "output", "w+") as output:
        order = Order(
            args=("/seldom", case), user=users.pick(), output=output.fileno(), environment=ENVIRONMENT,
            files=(Entry(seldom, "/seldom"), *map(Entry, libraries(seldom)), *map(Entry, _UNWINDER)),
            devices=(Path("/dev/null"), Path("/dev/urandom")), filter=seccomp.program(seccomp.read(CALLS)),
            limits=JailLimits(processes=40),
        )  # fmt: skip
        started = await HyperJail(tmp_path / "jail").spawn(order)
        _, status = await asyncio.to_thread(os.waitpid, started.pid, 0)
        output.seek(0)
        said = output.read().strip()
        assert (said, os.waitstatus_to_exitcode(status)) == ("" if SELDOM[case] else "done", SELDOM[case])


def as_made(program: Path) -> dict[str, Order]:
    """The orders of the product's helpers."""
    directory = program.parent / "shared"
    directory.mkdir(exist_ok=True)
    file = directory / "file"
    file.touch()
    own = users.pick()
    job = Job(own, own, Limits())
    source = Source("docker", "registry.example/image:1")
    tool = helpers.order(program, files=(Entry(file, writable=True),), own_user=own)
    return {
        "a tool for file systems": tool,
        "the worker": conversion._order(job, ()),
        "skopeo": transport.order([], source, own, place=directory),
        "skopeo that pushes": transport.order([], Source("dir", str(directory)), own, seen=directory),
        "virtiofsd": share._jailed(str(program), [share.Entry(directory, False)], 0, 1),
        "who carries messages of FUSE": share._carrying(program, own, 0, 1, 1),
        "passt": passt._order([str(program)], own, 0, 1, 1),
        "a plugin of CNI": plugin.order(program, {"type": "bridge"}, {}),
    }


_BY_NETWORK = {"connect to the host's loopback", "connect to an address far away"}
_SETTINGS = {"open /proc/kallsyms"}  # its /proc is not of processes only; addresses there are zeros
_BY_ROOT = {"become root", "take root's group"}  # its number, which is nothing without capabilities
GRANTED_TO = {
    # The directory that leads to an interpreter which lies there.
    "the worker": {"open root's home"} if sys.base_prefix.startswith("/root/") else set[str](),
    "skopeo": _BY_NETWORK,
    "skopeo that pushes": _BY_NETWORK,
    # A namespace of its own parts it from abstract sockets once it runs.
    "passt": _SETTINGS | _BY_NETWORK | {"connect to an abstract socket"},
    "virtiofsd": _SETTINGS | _BY_ROOT | {"change the root"},  # its root holds the shared directories only
    "a plugin of CNI": (_SETTINGS | _BY_NETWORK | _BY_ROOT)
    | {"make a raw socket", "make a packet socket", "keep a capability in its bounding set"},
}
OF_HELPERS = ["a tool for file systems", "the worker", "skopeo", "skopeo that pushes", "virtiofsd",
              "who carries messages of FUSE", "passt", "a plugin of CNI"]  # fmt: skip


@pytest.mark.parametrize("who", OF_HELPERS)
async def test_in_a_helpers_place(host: Host, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    """Only what it is there for."""
    monkeypatch.setattr(helpers, "_jail", host.jail)
    if who.startswith("skopeo") and not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed")
    order = as_made(host.program)[who]
    worked = []
    for number, (name, kind) in enumerate(attempts(host.program)):
        printed, _ = await host.tried(order, number, host.values[kind])
        worked += [name] if printed == "worked" else []
        assert printed, name
    assert set(worked) - GRANTED_TO.get(who, set()) == set()


def attempts(program: Path) -> list[list[str]]:
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    return [line.split("|") for line in done.stdout.splitlines()]


def test_the_list_of_calls() -> None:
    rules = seccomp.read(CALLS)
    granted = [r.name for r in rules if not r.missing]
    assert len(granted) <= GRANTED and len(set(granted)) == len(granted)
    assert [name for name in granted if name.startswith(FORBIDDEN)] == []
