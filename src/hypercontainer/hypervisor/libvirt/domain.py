# SPDX-License-Identifier: Apache-2.0
"""What is done to one domain, in a thread: started, paused, ended. Each takes the library's connection first."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as XML

from ...errors import InvalidState, Unavailable
from ...jail.jail import Started
from ...sys import process
from ..driver import Disk
from ..qemu.formats import check_image
from . import document
from .binding import errors, library
from .document import Known


@dataclass
class Start:
    """A domain that is about to be; whoever gives it up meanwhile has none."""

    described: str
    known: Known
    disks: Sequence[Disk] = ()
    handed: bool = False  # disks go as descriptors
    control_groups: Sequence[Path] = ()
    given_up: threading.Event = field(default_factory=threading.Event)

    def run(self, connection: Any) -> Started:
        """It stands still before its first instruction, in its control groups; it goes when libvirt's host ends it."""
        try:
            self._create(connection)
            started = process_of(self.known.uuid)
            if not started.pid:
                raise Unavailable("libvirt's QEMU is not to be seen here", hint="hyperd must be on its host")
            self._confine(started.pid)
            if self.given_up.is_set():
                raise Unavailable("it was given up")
        except BaseException:
            with contextlib.suppress(*errors()):  # whoever waits for this ends it, too
                end(connection, self.known.uuid)
            raise
        return started

    def _confine(self, pid: int) -> None:
        """Into our groups, out of libvirt's: limits of both would be told by one of them only."""
        for group in self.control_groups:
            try:
                (group / "cgroup.procs").write_text(str(pid))
            except OSError as error:
                raise Unavailable(f"it cannot be in the control group {group}: {error.strerror}") from error

    def _create(self, connection: Any) -> None:
        paused = library().VIR_DOMAIN_START_PAUSED
        if not self.handed:
            with contextlib.ExitStack() as stack:
                for disk in self.disks:
                    opened(disk, stack)  # as a look at them
            connection.createXML(self.described, paused)
            return
        # Only a domain that there is can be handed descriptors: it is one that stays, until it runs.
        defined = connection.defineXML(self.described)
        with contextlib.ExitStack() as stack:
            for disk in self.disks:
                defined.FDAssociate(disk.serial, [opened(disk, stack)], 0)
            defined.createWithFlags(paused)
            defined.undefine()


def opened(disk: Disk, stack: contextlib.ExitStack) -> int:
    """Its descriptor, as long as `stack` is open.

    :raise Unavailable: there is no such file. :raise InvalidArgument: it is no image of its format.
    """
    try:
        fd = os.open(disk.path, (os.O_RDONLY if disk.read_only else os.O_RDWR) | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Unavailable(f"{disk.path} does not exist") from None
    stack.callback(os.close, fd)
    check_image(fd, disk.format, disk.path)
    return fd


def _found(connection: Any, uuid: str) -> Any:
    """None when there is none."""
    try:
        return connection.lookupByUUIDString(uuid)
    except library().libvirtError as error:
        if error.get_error_code() == library().VIR_ERR_NO_DOMAIN:
            return None
        raise


def _one(connection: Any, uuid: str) -> Any:
    domain = _found(connection, uuid)
    if domain is None:
        raise Unavailable("the virtual machine has ended")
    return domain


def end(connection: Any, uuid: str) -> bool:
    """Nothing is left of it. Idempotent; whether there was one."""
    domain = _found(connection, uuid)
    if domain is None:
        return False
    module = library()
    for undo in (domain.destroy, domain.undefine):
        try:
            undo()
        except module.libvirtError as error:
            gone = (module.VIR_ERR_NO_DOMAIN, module.VIR_ERR_OPERATION_INVALID)  # it does not run; it does not stay
            if error.get_error_code() not in gone:
                raise
    return True


def sweep(connection: Any, run: Path) -> None:
    """Take back domains that an earlier daemon of this directory was about to start when it was killed."""
    module = library()
    for domain in connection.listAllDomains(module.VIR_CONNECT_LIST_DOMAINS_INACTIVE):
        with contextlib.suppress(module.libvirtError):  # one of somebody else's, or gone
            about = domain.metadata(module.VIR_DOMAIN_METADATA_ELEMENT, document.METADATA)
            if run in Path(XML.fromstring(about).get("directory", "")).parents:
                domain.undefine()


def runs(connection: Any, uuid: str) -> bool:
    """Whether there is such a domain, and it has not ended."""
    domain = _found(connection, uuid)
    return domain is not None and bool(domain.isActive())


def number(connection: Any, uuid: str) -> int:
    """What its hypervisor knows it by. :raise Unavailable: it has ended."""
    found: int = _one(connection, uuid).ID()
    if found < 0:
        raise Unavailable("the virtual machine has ended")
    return found


def suspend(connection: Any, uuid: str) -> None:
    """:raise Unavailable: it has ended."""
    _one(connection, uuid).suspend()


def resume(connection: Any, uuid: str) -> None:
    """:raise Unavailable: it has ended."""
    _one(connection, uuid).resume()


def stalled(connection: Any, uuid: str) -> bool:
    """Whether it stands still since a disk took nothing."""
    module = library()
    state: list[int] = _one(connection, uuid).state()
    return state == [module.VIR_DOMAIN_PAUSED, module.VIR_DOMAIN_PAUSED_IOERROR]


def add_disk(connection: Any, uuid: str, disk: Disk) -> None:
    """:raise InvalidState: it has no bus that takes disks."""
    domain = _one(connection, uuid)
    described = domain.XMLDesc()
    if not document.expandable(described):
        raise InvalidState("the virtual machine was not launched to take disks")
    taken = {target for _, target in document.serials(described).values()}
    place = next(n for n in range(len(taken) + 1) if n not in taken)
    with contextlib.ExitStack() as stack:
        opened(disk, stack)  # as a look at it
    attach(connection, uuid, document.disk(disk, place, scsi=True, handed=False))


def remove_disk(connection: Any, uuid: str, serial: str) -> None:
    """Idempotent."""
    domain = _one(connection, uuid)
    if found := document.serials(domain.XMLDesc()).get(serial):
        domain.detachDeviceFlags(found[0], library().VIR_DOMAIN_AFFECT_LIVE)


def attach(connection: Any, uuid: str, described: XML.Element) -> None:
    """Have a domain that runs get a device."""
    _one(connection, uuid).attachDeviceFlags(
        XML.tostring(described, encoding="unicode"), library().VIR_DOMAIN_AFFECT_LIVE
    )


def detach_disk(connection: Any, uuid: str, target: str) -> None:
    """Of this name in the guest. Idempotent."""
    domain = _one(connection, uuid)
    found = XML.fromstring(domain.XMLDesc()).find(f"devices/disk/target[@dev='{target}']/..")
    if found is not None:
        domain.detachDeviceFlags(XML.tostring(found, encoding="unicode"), library().VIR_DOMAIN_AFFECT_LIVE)


def process_of(uuid: str) -> Started:
    """The QEMU of a domain, where it is to be seen; 0 and 0 else."""
    for pid, words in command_lines():
        if uuid.encode() in words:
            return Started(pid, process.start_time(pid))
    return Started(0, 0)


def known_as(pid: int) -> Known:
    """The other way round; empty when it has ended."""
    with contextlib.suppress(OSError, ValueError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        name = words[words.index("-name") + 1].removeprefix("guest=").partition(",")[0]
        return Known(name, words[words.index("-uuid") + 1])
    return Known("", "")


def log_of(name: str) -> Path:
    """Where libvirt keeps what a domain's QEMU wrote (src/qemu/qemu_conf.c); it removes none."""
    if os.geteuid() == 0:
        return Path("/var/log/libvirt/qemu") / f"{name}.log"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "libvirt/qemu/log" / f"{name}.log"


def drop_log(name: str) -> None:
    """Idempotent."""
    with contextlib.suppress(OSError):
        log_of(name).unlink()


def command_lines() -> Iterator[tuple[int, list[bytes]]]:
    """Of all processes, with their numbers."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                yield int(entry.name), (entry / "cmdline").read_bytes().split(b"\0")
