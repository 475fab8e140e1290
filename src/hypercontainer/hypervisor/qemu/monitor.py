# SPDX-License-Identifier: Apache-2.0
"""QMP: what is asked of a running QEMU. One connection per need; QEMU takes one at a time.

https://www.qemu.org/docs/master/interop/qmp-spec.html. Lines of JSON on a unix
socket: a greeting, `qmp_capabilities`, then commands, which QEMU takes in
their order, with their answers and events between. Written here because a
machine of the pool waits for it; see docs/adr/0005.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ...errors import Conflict, InvalidState, Unavailable, Unsupported
from ...sys import deadlines
from ...sys.documents import UNREADABLE
from ..driver import AnyDisk, Disk
from .devices import FDSET_EXCHANGED, FDSET_STATE, SLOT, block_node, disk_device, nic_in_slot
from .formats import check_image

_READ = 64 << 10
_EVENTS_MAX = 1000  # that nobody has asked for yet
_ANSWER_MAX = 4 << 20  # bytes of an answer; the longest that we ask for has some tens of thousands
_BACKLOG_PAUSE = 0.05
_SAVE_TIMEOUT, _LOAD_TIMEOUT = 30.0, 10.0  # seconds, as the others
_STEPS_MAX = 20  # of a migration: QEMU 9 has 15 states
_UNPLUG_TIMEOUT = 10.0  # for the guest to let a disk go
_ADDRESS = re.compile(r"\bis (0x[0-9a-f]+)")  # monitor/misc.c, hmp_gpa2hva
_OF_A_DISK = re.compile(r"\bdev-(\w+)")  # in the device's name, or its path


class Command(NamedTuple):
    """One command; a descriptor travels with it."""

    name: str
    arguments: dict[str, Any] | None = None
    fd: int | None = None


# With events of its end; memory that lies in a shared file stays there.
_CAPABILITIES = Command(
    "migrate-set-capabilities",
    {"capabilities": [{"capability": name, "state": True} for name in ("events", "x-ignore-shared")]},
)


def _words(error: Any) -> str:
    return str(error.get("desc", "")) if isinstance(error, dict) else str(error)


class Monitor:
    """Connected for the time of an `async with`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sock = socket.socket(socket.AF_UNIX)
        self._buffer = b""
        self._events: deque[dict[str, Any]] = deque(maxlen=_EVENTS_MAX)

    async def __aenter__(self) -> Monitor:
        self._sock.setblocking(False)
        try:
            await self._connect()
        except (OSError, TimeoutError) as error:
            self._sock.close()
            raise Unavailable(f"QEMU's monitor cannot be reached: {error}") from error
        try:
            await self.execute("qmp_capabilities")
        except BaseException:
            self._sock.close()
            raise
        return self

    async def _connect(self) -> None:
        """A full backlog says "later" on a unix socket, which an event loop takes for "in progress"."""
        async with asyncio.timeout(deadlines.MONITOR):
            while True:
                try:
                    return self._sock.connect(str(self._path))
                except BlockingIOError:
                    await asyncio.sleep(_BACKLOG_PAUSE)

    async def __aexit__(self, *_: object) -> None:
        self._sock.close()

    # -- the protocol -----------------------------------------------------------------

    async def execute(self, name: str, arguments: dict[str, Any] | None = None, fd: int | None = None) -> Any:
        """:raise Unavailable: when QEMU refuses, with its words, or does not answer."""
        return (await self.execute_all([Command(name, arguments, fd)]))[0]

    async def execute_all(self, commands: Sequence[Command]) -> list[Any]:
        """All at once, without a wait between them; `execute` says what is raised."""
        answers = await self._ask(commands)
        for command, answer in zip(commands, answers, strict=True):
            if "error" in answer:
                raise Unavailable(f"QEMU did not take {command.name!r}: {_words(answer['error'])}")
            if "return" not in answer:
                raise Unavailable(f"QEMU's answer to {command.name!r} is none")
        return [answer["return"] for answer in answers]

    async def _ask(self, commands: Sequence[Command]) -> list[dict[str, Any]]:
        """What QEMU answers to each, also where it refuses.

        :raise Unavailable: it does not answer.
        """
        try:
            async with asyncio.timeout(deadlines.MONITOR):
                for command in commands:
                    await self._send(command)
                return [await self._answer() for _ in commands]
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"QEMU did not answer {commands[0].name!r}: {error or 'no time left'}") from error

    async def _send(self, command: Command) -> None:
        document: dict[str, Any] = {"execute": command.name}
        if command.arguments is not None:
            document["arguments"] = command.arguments
        data = msgspec.json.encode(document) + b"\n"
        if command.fd is not None:  # short, and the buffer is empty: it is taken at once
            data = data[socket.send_fds(self._sock, [data], [command.fd]) :]
        if data:
            await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def _answer(self) -> dict[str, Any]:
        while True:
            message = await self._message()
            if "event" in message:
                self._events.append(message)
            elif "QMP" not in message:
                return message

    async def _message(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            data = await asyncio.get_running_loop().sock_recv(self._sock, _READ)
            if not data:
                raise ConnectionError("it closed its monitor")
            self._buffer += data
            if len(self._buffer) > _ANSWER_MAX:
                raise ConnectionError("it answers without end")
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
        except UNREADABLE as error:
            raise ConnectionError(f"its answer is not understood: {error}") from None
        return message

    async def event(self, name: str, timeout: float) -> dict[str, Any]:
        """The next one of this name since the connection began: its data.

        :raise TimeoutError: none came in so many seconds. :raise Unavailable: QEMU has ended.
        """
        try:
            async with asyncio.timeout(timeout):
                while not any(e.get("event") == name for e in self._events):
                    self._events.append(await self._message())
        except TimeoutError:
            raise
        except OSError as error:
            raise Unavailable(f"QEMU ended while {name} was awaited: {error}") from error
        found = next(e for e in self._events if e.get("event") == name)
        self._events.remove(found)
        data: dict[str, Any] = found.get("data", {})
        return data

    async def human(self, line: str) -> None:
        """A command that has no counterpart in QMP; any answer is a complaint.

        :raise Conflict: with that answer.
        """
        answer = await self.execute("human-monitor-command", {"command-line": line})
        if answer.strip() and "removed" not in answer:
            raise Conflict(f"QEMU refused {line!r}: {answer.strip()}")

    # -- disks ------------------------------------------------------------------------

    async def add_disk(self, disk: AnyDisk) -> None:
        node, fdset = f"disk-{disk.serial}", -1
        if isinstance(disk, Disk):
            with _opened(disk) as fd:
                fdset = (await self.execute("add-fd", fd=fd))["fdset-id"]
        elif disk.keyring:
            await self.execute(
                "object-add", {"qom-type": "secret", "id": f"{node}-key", "data": disk.keyring, "format": "base64"}
            )
        await self.execute("blockdev-add", block_node(disk, node, fdset))
        try:
            await self.execute("device_add", disk_device(disk, node, scsi=True))
        except Unavailable as error:
            await self.execute("blockdev-del", {"node-name": node})
            raise InvalidState(
                "this virtual machine takes no further disks while it runs", hint="stop the pod first"
            ) from error

    async def remove_disk(self, serial: str) -> None:
        device, node = f"dev-{serial}", f"disk-{serial}"
        nodes = await self.execute("query-named-block-nodes", {"flat": True})
        if not any(n.get("node-name") == node for n in nodes):
            return
        with contextlib.suppress(Unavailable, TimeoutError):  # it may be gone already
            await self.execute("device_del", {"id": device})
            while (await self.event("DEVICE_DELETED", _UNPLUG_TIMEOUT)).get("device") != device:
                pass
        await self.execute("blockdev-del", {"node-name": node})

    async def exchange(self, disks: Sequence[Disk], old: dict[str, str]) -> None:
        """Put other files behind disks, all in one go.

        `old` knows the nodes of earlier files by the disks' serial numbers, and is brought up to date.
        """
        commands: list[Command] = []
        nodes: list[dict[str, Any]] = []
        names: dict[str, str] = {}
        with contextlib.ExitStack() as stack:
            for disk in disks:
                fdset = FDSET_EXCHANGED + secrets.randbelow(1 << 30)  # one that was in use may still be
                name = names[disk.serial] = f"file-{fdset}"
                node = block_node(disk, f"disk-{disk.serial}", fdset)
                file = {**node["file"], "node-name": name, "read-only": disk.read_only}
                commands += [
                    Command("add-fd", {"fdset-id": fdset}, stack.enter_context(_opened(disk))),
                    Command("blockdev-add", file),
                ]
                nodes.append({**node, "file": name})
            if nodes:
                gone = [Command("blockdev-del", {"node-name": old.pop(serial)}) for serial in names if serial in old]
                await self.execute_all([*commands, Command("blockdev-reopen", {"options": nodes}), *gone])
                old.update(names)

    async def failed_requests(self) -> dict[str, int]:
        """How many failed, by the serial numbers of disks."""
        found = {}
        for device in await self.execute("query-blockstats"):
            if match := _OF_A_DISK.search(device.get("qdev", "")):
                stats = device["stats"]
                found[match[1]] = sum(stats[f"failed_{kind}_operations"] for kind in ("rd", "wr", "flush"))
        return found

    # -- spare NICs -------------------------------------------------------------------
    # The netdev of a NIC can never be another one; that of a spare one is a port of a hub (net/hub.c), which gets a
    # second port, to a tap, while the machine runs.

    async def plugged(self, nic: int) -> bool:
        """Whether a spare NIC's hub has its second port."""
        (answer,) = await self._ask([Command("set_link", {"name": f"port{nic}", "up": True})])
        return "return" in answer

    async def plug_in(self, nic: int, fd: int) -> None:
        """Give the hub of a spare NIC a tap; the guest sees its carrier come."""
        tap, port = f"tap{nic}", f"port{nic}"
        try:
            await self.execute_all(
                [
                    Command("getfd", {"fdname": tap}, fd),
                    Command("netdev_add", {"type": "tap", "id": tap, "fd": tap}),
                    Command("netdev_add", {"type": "hubport", "id": port, "hubid": nic, "netdev": tap}),
                    Command("set_link", {"name": f"net{nic}", "up": True}),
                ]
            )
        except Unavailable:
            with contextlib.suppress(Unavailable):
                await self.pull_out(nic)
            raise

    async def add_nic(self, nic: int, mac: str) -> None:
        """A further spare NIC, in a slot of its own.

        :raise Unsupported: the machine has no slot left. :raise Unavailable: QEMU refuses; nothing of it is left then.
        """
        found = await self.execute("qom-list", {"path": "/machine/peripheral"})
        names = {str(each["name"]) for each in found}
        if any(name.startswith(f"nic{nic}.") for name in names):
            return
        taken = {name.partition(".")[2] for name in names}
        free = sorted(name for name in names if name.startswith(SLOT) and name not in taken)
        if not free:
            raise Unsupported("the virtual machine has no slot left for a network interface")
        slot = int(free[0].removeprefix(SLOT))
        await self.execute("netdev_add", {"type": "hubport", "id": f"net{nic}", "hubid": nic})
        try:
            await self.execute("device_add", nic_in_slot(nic, mac, slot))
        except Unavailable:
            with contextlib.suppress(Unavailable):
                await self.execute("netdev_del", {"id": f"net{nic}"})
            raise

    async def pull_out(self, nic: int) -> None:
        """Take the tap away, and what is left of a `plug_in` that came to no end; what is not there is no error.

        Without a carrier the NIC drops what its guest sends: a hub without a second port would keep it.
        """
        await self._ask(
            [
                Command("set_link", {"name": f"net{nic}", "up": False}),
                Command("netdev_del", {"id": f"port{nic}"}),
                Command("netdev_del", {"id": f"tap{nic}"}),
                Command("closefd", {"fdname": f"tap{nic}"}),
            ]
        )

    # -- snapshots ----------------------------------------------------------------------
    # https://www.qemu.org/docs/master/devel/migration/main.html

    async def load(self, state: int) -> None:
        """Start from what `save` or `save_devices` left; `state` is the descriptor's number in QEMU.

        :raise Unavailable: when it does not come up.
        """
        await self._take_in(state)
        await self._resumed()

    async def load_early(self, state: int, disks: Sequence[Disk], old: dict[str, str]) -> None:
        """The same of a machine that was started with `-S`; other files lie behind disks, as `exchange` says, before
        anything of it runs.

        :raise Unavailable: when it does not come up.
        """
        await self._take_in(state)
        await self.migrated("go on from what was saved", _LOAD_TIMEOUT)
        await self.exchange(disks, old)
        await self.execute("cont")
        await self._resumed()

    async def _take_in(self, state: int) -> None:
        await self.execute_all([_CAPABILITIES, Command("migrate-incoming", {"uri": f"fd:{state}"})])

    async def _resumed(self) -> None:
        try:
            await self.event("RESUME", _LOAD_TIMEOUT)  # before it runs, its serial port would lose what is sent
        except TimeoutError:
            raise Unavailable("QEMU did not take the saved machine up") from None

    async def address_of_memory(self, begin: int) -> int:
        """Where the guest's memory, which has its first byte at `begin`, lies in QEMU's.

        :raise Unavailable: QEMU does not say.
        """
        answer = await self.execute("human-monitor-command", {"command-line": f"gpa2hva {begin:#x}"})
        if match := _ADDRESS.search(answer):
            return int(match[1], 16)
        raise Unavailable(f"QEMU does not say where the guest's memory is: {answer.strip()}")

    async def save_devices(self, state: int) -> None:
        """Write the state of the devices of a machine that runs; it stands still then, and `cont` lets it go on.

        What starts from it runs at once. `state` is a descriptor that can only be written.
        """
        fdset = FDSET_STATE + secrets.randbelow(1 << 29)  # one that was in use may still be
        asked = [
            Command("stop"),
            Command("add-fd", {"fdset-id": fdset}, state),
            # `live` as seen by Xen: whether QEMU is to let go of its disks.
            Command("xen-save-devices-state", {"filename": f"/dev/fdset/{fdset}", "live": False}),
            Command("remove-fd", {"fdset-id": fdset}),
        ]
        await self.execute_all(asked)

    async def save(self, state: int) -> None:
        """Write the state of the devices; the memory is in a shared file and stays there.

        The machine is stopped by it. It must run before: a clone goes on in the same way.
        """
        migrate = [Command("getfd", {"fdname": "state"}, state), Command("migrate", {"uri": "fd:state"})]
        await self.execute_all([_CAPABILITIES, *migrate])
        await self.migrated("save the machine", _SAVE_TIMEOUT)

    async def migrated(self, what: str, timeout: float) -> None:
        """Await the end of a migration, `timeout` seconds for each of its steps, of which there are a few.

        :raise Unavailable: it is none that is wanted.
        """
        status = "active"
        with contextlib.suppress(TimeoutError):
            for _ in range(_STEPS_MAX):
                status = (await self.event("MIGRATION", timeout))["status"]
                if status in ("completed", "failed", "cancelled"):
                    break
        if status != "completed":
            raise Unavailable(f"QEMU could not {what}: the state of its migration is {status!r}")


@contextlib.contextmanager
def _opened(disk: Disk) -> Iterator[int]:
    fd = os.open(disk.path, (os.O_RDONLY if disk.read_only else os.O_RDWR) | os.O_CLOEXEC)
    try:
        check_image(fd, disk.format, disk.path)
        yield fd
    finally:
        os.close(fd)
