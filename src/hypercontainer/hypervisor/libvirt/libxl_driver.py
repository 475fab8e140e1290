# SPDX-License-Identifier: Apache-2.0
"""Making domains of Xen by libvirt's driver libxl, and finding them again."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Container, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as XML

from ...errors import Unavailable
from ...jail.jail import Started
from ...sys import process
from .. import found
from ..driver import Disk, Machine, MachineConfig, Probe, SpareNetwork, TapNetwork, check_takes
from ..facets import Needs, facets_of
from ..xen import tools
from ..xen.bring_up import bring_up
from ..xen.disks import loops
from ..xen.document import check_domain, macs, names
from . import binding, domain, libxl_document
from .connection import Connection
from .document import CHANNEL, known_anew
from .libxl_machine import LibxlMachine, drop_logs

log = logging.getLogger(__name__)
_HERE = re.compile(r"xen(\+unix)?")  # schemes of this host
_START = 60.0  # seconds: Xen's scripts run meanwhile, one for each disk and each network interface
_CHANNEL = re.compile(rb"socket,id=libxl-channel\d+,path=(/[^,]*)/" + re.escape(CHANNEL.encode()) + rb",")
_SAYS_WHY = "/var/log/libvirt/libxl/libxl-driver.log says why"
_INSTALL = "install libvirt-daemon-driver-xen and python3-libvirt"


class LibxlDriver:
    """PVH domains of this host's Xen, which libvirt's daemon makes and holds."""

    name = "libvirt"
    takes: frozenset[type] = frozenset({Disk, TapNetwork, SpareNetwork})
    facets = facets_of(LibxlMachine)

    def __init__(self, *, uri: str, boot_timeout: float) -> None:
        """`boot_timeout` in seconds, from a domain's making to its guest's call."""
        self._uri, self._boot_timeout = uri, boot_timeout
        self._connection = Connection(uri)

    @property
    def version(self) -> str:
        return binding.version()

    # -- what is found on this host ------------------------------------------------------------

    async def probe(self) -> Probe:
        try:
            hypervisor = await self._usable()
        except Unavailable as error:
            return Probe("xen", error.message, error.message, error.hint or "")
        return Probe("xen", f"Xen {hypervisor} by {self._uri} has PVH domains")

    async def try_again(self) -> Probe:
        return await self.probe()

    async def close(self) -> None:
        await self._connection.close()

    async def _usable(self) -> str:
        """The hypervisor's version.

        :raise Unavailable: it can start nothing.
        """
        if not self.version:
            raise Unavailable("libvirt's Python module is not installed", hint=_INSTALL)
        parts = urlsplit(self._uri)
        if not _HERE.fullmatch(parts.scheme) or parts.netloc:
            raise Unavailable(f"{self._uri} is no Xen of this host", hint="set `libvirt_uri` to xen:///system")
        trouble, hint = tools.hindrance("xenstore-read", "xenstore-write")
        if trouble:
            raise Unavailable(trouble, hint=hint)
        return await self._connection.ask("say what it can", _examine)

    async def footprint(self, vcpus: int, memory: int, architecture: str = "") -> Needs:
        return tools.FOOTPRINT

    # -- machines ----------------------------------------------------------------------------

    async def launch(self, config: MachineConfig) -> LibxlMachine:
        """It returns when the guest has called.

        :raise InvalidArgument: a domain cannot be so.
        """
        check_takes(self, config)
        check_domain(config, self.name)
        await self._usable()
        config.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (config.directory / CHANNEL).unlink(missing_ok=True)
        known = known_anew(config.name)
        async with contextlib.AsyncExitStack() as undo:
            with contextlib.ExitStack() as held:
                disks = loops([d for d in config.disks if isinstance(d, Disk)], held)
                text = libxl_document.domain(config, known, disks.paths, str(tools.binary("true")))
                log.debug("a domain of libvirt: %s", text)
                start = domain.Start(text, known, control_groups=config.control_groups)
                undo.callback(drop_logs, known.name)
                undo.push_async_callback(self._connection.end, known.uuid)
                undo.callback(start.given_up.set)
                started = await self._started(start)
                domid = await self._connection.ask("number a virtual machine", partial(domain.number, uuid=known.uuid))
                machine = LibxlMachine(
                    self._connection, config.directory, known, started, domid, names(config), macs(config)
                )
                undo.push_async_callback(machine.kill)
                found.write(self.name, config.directory, started)
                await disks.opened(domid)
            await bring_up(machine, domid, config, machine.resume, self._boot_timeout)
            undo.pop_all()
        return machine

    async def _started(self, start: domain.Start) -> Started:
        try:
            return await self._connection.ask("start a virtual machine", start.run, _START)
        except Unavailable as error:
            error.hint = error.hint or _SAYS_WHY
            raise

    async def reattach(self, handle: Mapping[str, Any]) -> LibxlMachine | None:
        """A domain whose QEMU has ended has no channel: it ends now."""
        machine = LibxlMachine.of(self._connection, handle)
        if not machine.alive:
            if tools.is_dom0():
                await machine.kill()
            return None
        await machine.listen(machine.domid)
        return machine

    def strays(self, parent: Path, keep: Container[Path]) -> list[Machine]:
        """libxl gives the QEMU of a domain no variables of ours; its command line has the channel's place."""
        left = found.strays(self.name, parent, keep, dict(_channels()))
        return [
            LibxlMachine(self._connection, f.directory, domain.known_as(f.pid), Started(f.pid, f.started))
            for f in left
            if process.real_user(f.pid) == os.geteuid()  # its command line says which domain is ended
        ]


def _examine(connection: Any) -> str:
    """:raise Unavailable: its Xen has no PVH domains."""
    kinds = {kind.text for kind in XML.fromstring(connection.getCapabilities()).iterfind("guest/os_type")}
    if "xenpvh" not in kinds:
        raise Unavailable("libvirt's Xen has no PVH domains here", hint="see `xl dmesg`")
    return binding.release(connection.getVersion())


def _channels() -> Iterator[tuple[int, Path]]:
    """Processes that have an agent's channel of libxl's, and in which directory."""
    for pid, words in domain.command_lines():
        for word in words:
            if channel := _CHANNEL.match(word):
                yield pid, Path(os.fsdecode(channel[1]))
