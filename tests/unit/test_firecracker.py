# SPDX-License-Identifier: Apache-2.0
"""Firecracker's driver as far as it goes without KVM: with programs and servers in the place of Firecracker."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.errors import InvalidArgument, Unavailable, Unsupported
from hypercontainer.hypervisor import found, taps
from hypercontainer.hypervisor.driver import Disk, MachineConfig, TapNetwork, UserNetwork
from hypercontainer.hypervisor.firecracker import api, confinement, document
from hypercontainer.hypervisor.firecracker.driver import FirecrackerDriver
from hypercontainer.hypervisor.firecracker.drives import Drives
from hypercontainer.hypervisor.firecracker.machine import FirecrackerMachine
from hypercontainer.hypervisor.firecracker.places import CALL, places
from hypercontainer.jail.jail import Started
from hypercontainer.sys import process

MIB = 1 << 20


def config(path: Path, **how: Any) -> MachineConfig:
    (path / "kernel").write_bytes(b"kernel")
    return MachineConfig(
        **{"name": "a b", "directory": path / "a", "vcpus": 2, "memory": 256 * MIB, "kernel": path / "kernel",
           "initramfs": path / "kernel", **how}
    )  # fmt: skip


def two_disks(path: Path) -> tuple[Disk, ...]:
    return (Disk("image", path / "image", read_only=True), Disk("scratch", path / "scratch", read_only=False))


# -- its description ----------------------------------------------------------------


def test_a_machine_in_its_configuration_file(tmp_path: Path) -> None:
    wanted = config(tmp_path, disks=two_disks(tmp_path), networks=(TapNetwork("52:54:00:00:00:07", 3, "ht0"),))
    made = document.document(wanted, (7, 9), places(wanted, jailed=True))
    drive = {"is_root_device": False, "cache_type": "Writeback"}
    assert made == {
        "boot-source": {
            "kernel_image_path": "/proc/self/fd/7",
            "initrd_path": "/proc/self/fd/9",
            "boot_args": "console=ttyS0 quiet loglevel=3 reboot=t panic=-1 no_timer_check pci=off "
            "hyper.channel=vsock:1024",
        },
        "machine-config": {"vcpu_count": 2, "mem_size_mib": 256},
        "drives": [
            {"drive_id": "disk0", "path_on_host": "/disks/0", "is_read_only": True, **drive},
            {"drive_id": "disk1", "path_on_host": "/disks/1", "is_read_only": False, **drive},
        ],
        "network-interfaces": [{"iface_id": "eth0", "guest_mac": "52:54:00:00:00:07", "host_dev_name": "ht0"}],
        "balloon": {"amount_mib": 0, "deflate_on_oom": True},
        "vsock": {"guest_cid": 3, "uds_path": "/machine/vsock.sock"},
    }


def test_each_disk_has_a_limit(tmp_path: Path) -> None:
    wanted = config(tmp_path, disks=two_disks(tmp_path))
    drives = document.document(wanted, (7, 9), places(wanted, jailed=True), io_rate=5 * MIB)["drives"]
    assert [d["rate_limiter"] for d in drives] == [{"bandwidth": {"size": 5 * MIB, "refill_time": 1000}}] * 2


def test_without_a_jail_it_has_the_hosts_paths(tmp_path: Path) -> None:
    wanted = config(tmp_path, disks=two_disks(tmp_path))
    made = document.document(wanted, (7, 9), places(wanted, jailed=False))
    assert [d["path_on_host"] for d in made["drives"]] == [f"{tmp_path}/image", f"{tmp_path}/scratch"]
    assert made["vsock"]["uds_path"] == f"{tmp_path}/a/vsock.sock"


def test_the_guest_finds_disks_by_their_order(tmp_path: Path) -> None:
    assert document.names(config(tmp_path, disks=two_disks(tmp_path))) == {"image": "dev:vda", "scratch": "dev:vdb"}


def test_so_many_processors_it_has(tmp_path: Path) -> None:
    document.check(config(tmp_path, vcpus=32))
    with pytest.raises(InvalidArgument, match="at most 32 processors: the driver 'qemu' has more"):
        document.check(config(tmp_path, vcpus=33))


def test_so_many_devices_it_has(tmp_path: Path) -> None:
    disks = tuple(Disk(f"d{n}", tmp_path, read_only=True) for n in range(document.DEVICES))
    document.check(config(tmp_path, disks=disks[1:]))
    for index in (1, 2):  # where all have a device each, there is no place for a balloon
        wanted = config(tmp_path, disks=disks[index:])
        assert ("balloon" in document.document(wanted, (7, 9), places(wanted, jailed=True))) == (index == 2)
    with pytest.raises(InvalidArgument, match="no place for 19 devices: it has 18; the driver 'qemu' has more"):
        document.check(config(tmp_path, disks=disks))


# -- what it is handed ----------------------------------------------------------------


def test_in_a_jail_it_has_its_disks_and_its_directory(tmp_path: Path) -> None:
    wanted = config(tmp_path, disks=two_disks(tmp_path), user=1234)
    where = places(wanted, jailed=True)
    order = confinement.order(("/usr/bin/firecracker",), wanted, where, [7, 9], 1, late=tmp_path)
    assert [(str(e.source), e.place, e.writable) for e in order.files] == [
        ("/usr/bin/firecracker", "/usr/bin/firecracker", False),
        (f"{tmp_path}/a", "/machine", True),
        (f"{tmp_path}/image", "/disks/0", False),
        (f"{tmp_path}/scratch", "/disks/1", True),
        (str(tmp_path), "/disks/late", True),
    ]
    assert order.user == 1234 and order.first_filter and not order.host_network
    assert {str(d) for d in order.devices} == {"/dev/null", "/dev/urandom", "/dev/kvm"}


def test_with_a_tap_it_is_in_the_hosts_network(tmp_path: Path) -> None:
    wanted = config(tmp_path, networks=(TapNetwork("52:54:00:00:00:07", 3, "ht0"),))
    order = confinement.order(("/fc",), wanted, places(wanted, jailed=True), [], 1, late=tmp_path)
    assert order.host_network and taps.DEVICE in order.devices


def test_without_one_it_runs_as_we_do(tmp_path: Path) -> None:
    wanted = config(tmp_path, user=1234)
    order = confinement.order(("/fc",), wanted, places(wanted, jailed=False), [], 1, late=None)
    assert order.user == os.geteuid() and not order.files


# -- what is asked of it ----------------------------------------------------------------

Serve = Callable[[bytes], Awaitable[Path]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """A server that answers each question with the same bytes; what it was asked is in a file beside it."""
    servers: list[asyncio.Server] = []

    async def start(answer: bytes) -> Path:
        async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            (tmp_path / "asked").write_bytes(head + await reader.readexactly(size))
            writer.write(answer)
            writer.close()

        servers.append(await asyncio.start_unix_server(serve_one, tmp_path / "api.sock"))
        return tmp_path / "api.sock"

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


async def test_a_question_and_its_answer(serve: Serve, tmp_path: Path) -> None:
    path = await serve(b"HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n")
    await api.ask(path, "PATCH", "/vm", {"state": "Paused"})
    asked = (tmp_path / "asked").read_bytes()
    assert asked.startswith(b"PATCH /vm HTTP/1.1\r\n") and asked.endswith(b'\r\n\r\n{"state":"Paused"}')


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            b"HTTP/1.1 400 \r\nContent-Length: 27\r\n\r\n" + b'{"fault_message":"no such"}',
            "did not take '/vm': no such",
        ),
        (b"HTTP/1.1 500 \r\nContent-Length: 3\r\n\r\n{{{", "did not take '/vm': 500"),
        (b"HTTP/1.1 200 \r\nContent-Length: 99\r\n\r\nshort", "did not answer '/vm'"),
        (b"HTTP/1.1 200 \r\nContent-Length: 9999999999\r\n\r\n", "it answers without end"),
        (b"HTTP/1.1 200 \r\nContent-Length: many\r\n\r\n", "did not answer '/vm'"),
        (b"what?\r\n\r\n", "did not answer '/vm'"),
        (b"", "did not answer '/vm'"),
    ],
)
async def test_answers_that_are_none(serve: Serve, answer: bytes, said: str) -> None:
    with pytest.raises(Unavailable, match=said):
        await api.ask(await serve(answer), "PUT", "/vm", {})


async def test_nobody_is_there(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="did not answer '/vm'"):
        await api.ask(tmp_path / "api.sock", "PUT", "/vm", {})


async def test_a_silent_one_is_given_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "api.sock"))
        silent.listen()
        with pytest.raises(Unavailable, match="did not answer '/vm': no time left"):
            await api.ask(tmp_path / "api.sock", "PUT", "/vm", {}, timeout=0.05)


async def test_a_connection_says_which_port(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as firecracker:
        firecracker.bind(str(tmp_path / "vsock.sock"))
        firecracker.listen()
        with FirecrackerMachine(tmp_path, 1, 1, Drives([])).connect():
            theirs, _ = firecracker.accept()
            with theirs:
                assert theirs.recv(100) == b"CONNECT 1024\n"
    with pytest.raises(Unavailable, match="cannot reach the guest: Connection refused"):
        FirecrackerMachine(tmp_path, 1, 1, Drives([])).connect()


# -- with a program in its place ------------------------------------------------------------


def stand_in(path: Path, script: str, version: str = "Firecracker v1.12.1") -> FirecrackerDriver:
    """A driver of it; the script has the machine's directory in $d."""
    program = path / "firecracker"
    api_socket = 'case "$1" in --api-sock) d=${2%/*};; esac'
    program.write_text(f"#!/bin/sh\n[ $1 = --version ] && echo '{version}' && exit\n{api_socket}\n{script}\n")
    program.chmod(0o755)
    return FirecrackerDriver(binary=str(program), accelerator="kvm", cache=path, boot_timeout=30)


# Who calls is no process of the machine's, though it may not have gone when the call is heard.
_CALL = "import socket,sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
CALLS = f"env -u {process.MACHINE} python3 -c '{_CALL}' $d/{CALL}"


async def test_a_machine_is_there_when_its_guest_has_called(tmp_path: Path) -> None:
    driver = stand_in(tmp_path, f"echo 'hello from the console'\n{CALLS}\nexec sleep 100")
    machine = await driver.launch(config(tmp_path))
    try:
        assert "hello from the console" in machine.last_words() and machine.alive
        assert stat.S_ISFIFO(os.stat(tmp_path / "a" / "console.pipe").st_mode)
        handle = json.loads(json.dumps(machine.handle))
        machine.detach()
        again = await driver.reattach(handle)
        assert again is not None and again.handle == machine.handle
        assert [m.pid for m in driver.strays(tmp_path, set())] == [machine.pid]
        assert driver.strays(tmp_path, {tmp_path / "a"}) == []
        assert found.strays("qemu", tmp_path, set()) == []  # each has its own
        again.detach()
    finally:
        await machine.kill()
    assert await driver.reattach(handle) is None and driver.strays(tmp_path, set()) == []


async def test_a_machine_is_nobody_elses_while_it_becomes_another_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its environment cannot be read for a moment then, in which it was taken for the first driver's."""
    driver = stand_in(tmp_path, f"{CALLS}\nexec sleep 100")
    machine = await driver.launch(config(tmp_path))
    looks, seen = 0, Path.read_bytes

    def once(path: Path) -> bytes:
        nonlocal looks
        if path != Path(f"/proc/{machine.pid}/environ"):
            return seen(path)
        looks += 1
        return seen(path) if looks == 1 else b""

    monkeypatch.setattr(Path, "read_bytes", once)
    try:
        assert found.strays("qemu", tmp_path, set()) == [] and looks
    finally:
        monkeypatch.undo()
        await machine.kill()


async def test_one_that_ends_at_once_says_why(tmp_path: Path) -> None:
    driver = stand_in(tmp_path, "echo 'Configuration: the kernel is no kernel'; exit 1")
    with pytest.raises(Unavailable, match="ended at once: Configuration: the kernel is no kernel"):
        await driver.launch(config(tmp_path))
    assert driver.strays(tmp_path, set()) == []


async def test_a_guest_that_does_not_call_is_given_up(tmp_path: Path) -> None:
    driver = stand_in(tmp_path, "echo 'Kernel panic - not syncing: no init'; exec sleep 100")
    driver._boot_timeout = 1.0
    with pytest.raises(Unavailable, match="did not come up within 1 s: Kernel panic - not syncing: no init"):
        await driver.launch(config(tmp_path))
    assert driver.strays(tmp_path, set()) == []


async def test_a_console_that_nobody_reads_holds_nothing_back(tmp_path: Path) -> None:
    """It is full after 64 KiB; what comes then is dropped, and a daemon that comes back reads what is there."""
    flood = (
        "python3 -c 'import os\nfor _ in range(9):\n  try: os.write(1, bytes(65536))\n  except BlockingIOError: pass'"
    )
    driver = stand_in(tmp_path, f"{CALLS}\n{flood}\ntouch $d/done; exec sleep 100")
    machine = await driver.launch(config(tmp_path))
    try:
        machine.detach()
        async with asyncio.timeout(60):
            while not (tmp_path / "a" / "done").exists():
                await asyncio.sleep(0.02)
    finally:
        await machine.kill()


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"networks": (UserNetwork("52:54:00:00:00:07"),)}, "does not support a user-mode network"),
        ({"disks": (Disk("d", Path("/d"), False, "qcow2"),)}, "disk images of the formats qcow2 and vdi"),
        ({"disks": (Disk("d", Path("/d"), False, cache="none"),)}, "cache modes"),
    ],
)
async def test_what_it_does_not_take(tmp_path: Path, part: dict[str, Any], said: str) -> None:
    with pytest.raises(Unsupported, match=said):
        await stand_in(tmp_path, "exit 1").launch(config(tmp_path, **part))
    assert not (tmp_path / "a").exists()


# -- what it finds ----------------------------------------------------------------------------


async def test_what_is_said_of_it(tmp_path: Path) -> None:
    missing = FirecrackerDriver(binary="/no/firecracker", accelerator="auto", cache=tmp_path, boot_timeout=1)
    probe = await missing.probe()
    assert missing.version == "" and probe.trouble == "/no/firecracker is not in the PATH" and "release" in probe.hint
    with pytest.raises(Unavailable, match="/no/firecracker is not in the PATH"):
        await missing.launch(config(tmp_path))
    old = stand_in(tmp_path, "exit 1", "Firecracker v1.4.0")
    assert (await old.probe()).trouble == "Firecracker 1.4.0"
    silent = stand_in(tmp_path, "exit 1", "what?")
    assert (await silent.probe()).trouble == "it does not say its version"
    assert (await stand_in(tmp_path, "exit 1").probe()).trouble == ""


async def test_without_kvm_it_starts_nothing(tmp_path: Path) -> None:
    driver = stand_in(tmp_path, "exit 1")
    driver._wanted = "tcg"
    assert (await driver.probe()).trouble == "it needs KVM: chosen in the configuration"
    with pytest.raises(Unavailable, match="starts nothing on this host: it needs KVM"):
        await driver.launch(config(tmp_path))


async def test_kvm_is_tried_by_a_guest_that_calls(tmp_path: Path) -> None:
    for script, trouble in ((f"{CALLS}; exec sleep 100", ""), ("echo no; exit 1", "ended at once: no")):
        driver = stand_in(tmp_path, script)
        driver._wanted = "auto"
        driver._prober._device = Path("/dev/null")
        driver.set_probe_machine(config(tmp_path))
        assert trouble in (await driver.try_again()).trouble and bool(trouble) == bool((await driver.probe()).trouble)
        await driver.close()


def test_machines_of_an_earlier_version_are_qemus(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "pid").write_text(f"{os.getpid()} {process.start_time(os.getpid())}")
    assert [f.pid for f in found.strays("qemu", tmp_path, set())] == [os.getpid()]
    assert found.strays("firecracker", tmp_path, set()) == []
    found.write("firecracker", tmp_path / "a", Started(os.getpid(), process.start_time(os.getpid())))
    assert [f.pid for f in found.strays("firecracker", tmp_path, set())] == [os.getpid()]
    assert found.strays("qemu", tmp_path, set()) == []


@pytest.mark.parametrize("status,caught", [(148, True), (0, False)])
async def test_a_forbidden_call_is_named(tmp_path: Path, status: int, caught: bool) -> None:
    """Firecracker's own filters raise a signal that it catches; what the guest says of calls is not believed."""
    words = "Shutting down VM after intercepting a bad syscall (83)."
    script = f"mkfifo $d/go; {CALLS}; read _ <$d/go; echo '{words}'; exit {status}"
    machine = await stand_in(tmp_path, script).launch(config(tmp_path))
    await asyncio.to_thread((tmp_path / "a" / "go").write_text, "\n")
    await asyncio.wait_for(machine.wait(), 60)
    assert ("Firecracker made a system call that its jail forbids: mkdir (83)" in machine.last_words()) == caught
    await machine.kill()


# -- taps ---------------------------------------------------------------------------------------


def test_what_a_killed_daemon_left_of_a_start_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[str] = []
    monkeypatch.setattr(taps, "drop", lambda names: dropped.extend(names))
    for name in ("half", "kept", "without"):
        (tmp_path / name).mkdir()
    taps.note(tmp_path / "half", ["ht0", "ht1"])
    taps.note(tmp_path / "kept", ["ht2"])
    taps.note(tmp_path / "without", [])
    assert stand_in(tmp_path, "exit 1").strays(tmp_path, {tmp_path / "kept"}) == []
    assert dropped == ["ht0", "ht1"] and not list((tmp_path / "without").iterdir())


def test_a_tap_is_handed_over_and_goes_with_who_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's part is played by a list; tests/lab has the real one."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr("fcntl.ioctl", lambda fd, what, value: asked.append((what, value)))
    fd = os.open("/dev/zero", os.O_RDWR)
    taps.hand_over([TapNetwork("52:54:00:00:00:07", fd, "ht0")], 1234)
    assert asked == [(taps._TUNSETOWNER, 1234), (taps._TUNSETPERSIST, 1)]
    assert os.readlink(f"/proc/self/fd/{fd}") == "/dev/null"
    os.close(fd)
    asked.clear()
    monkeypatch.setattr(taps, "_is_tap", lambda entry: os.path.realpath(entry) == "/dev/zero")
    with open("/dev/zero", "rb"):
        taps.tie(os.getpid())
    assert asked == [(taps._TUNSETPERSIST, 0)]
