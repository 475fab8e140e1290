# SPDX-License-Identifier: Apache-2.0
"""Making domains by xl, and finding them again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import uuid
from collections.abc import Container, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import HyperError, Unavailable
from ...jail.jail import Order, Started
from ...jail.plain import PlainJail
from ...sys import process
from .. import found
from ..ask import ask
from ..driver import Disk, Machine, MachineConfig, Probe, SpareNetwork, TapNetwork, check_takes
from ..facets import Needs, facets_of
from . import tools
from .bring_up import bring_up, console
from .disks import loops
from .document import channel, check, document, macs, names
from .machine import CHANNEL, LOG, XenMachine

log = logging.getLogger(__name__)
_DOCUMENT = "domain.cfg"  # in the machine's directory
_NAME = "HYPER_DOMAIN"  # in the environment of a domain's xl: the domain's name
_LOOK = 0.02  # seconds between looks at what xl has written
_MADE = re.compile(r"\(domid (\d+)\) to die")  # tools/xl/xl_vmcontrol.c of Xen, create_domain
_OURS = "hyper-"  # the begin of a domain's name
_NAMED = 40  # characters of a machine's name in its domain's


class XenDriver:
    """PVH domains of the host's own hypervisor."""

    name = "xen"
    takes: frozenset[type] = frozenset({Disk, TapNetwork, SpareNetwork})
    facets = facets_of(XenMachine)

    def __init__(self, *, boot_timeout: float) -> None:
        """`boot_timeout` in seconds, from a domain's making to its guest's call."""
        self._boot_timeout = boot_timeout
        self._about: dict[str, str] = {}  # what `xl info` says; nothing where this is no dom0
        self._asked = False

    # -- what is found on this host ------------------------------------------------------------

    @property
    def version(self) -> str:
        if not self._asked:
            self._ask()
        return self._about.get("xen_version", "")

    def _ask(self) -> None:
        self._asked = True
        if tools.is_dom0() and shutil.which("xl"):
            lines = ask("xl", "info").splitlines()
            self._about = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}

    async def probe(self) -> Probe:
        if not self._about and tools.is_dom0():  # it may take long to say nothing
            await asyncio.to_thread(self._ask)
        trouble, hint = self._trouble()
        return Probe("xen", trouble or f"Xen {self.version} has PVH domains", trouble, hint)

    def _trouble(self) -> tuple[str, str]:
        """Why there can be no domains, and what to do."""
        trouble, hint = tools.hindrance("xl", "xenstore-read", "xenstore-write")
        if trouble:
            return trouble, hint
        if not self.version:
            return "`xl info` does not answer", "see whether xenstored runs"
        if "hvm" not in self._about.get("virt_caps", "").split():
            return "the processor has no virtualization that Xen uses, which PVH domains need", "see `xl dmesg`"
        return "", ""

    async def footprint(self, vcpus: int, memory: int, architecture: str = "") -> Needs:
        return tools.FOOTPRINT

    # -- machines ----------------------------------------------------------------------------

    async def launch(self, config: MachineConfig) -> XenMachine:
        """It returns when the guest has called.

        :raise InvalidArgument: a domain cannot be so.
        """
        check_takes(self, config)
        check(config)
        if (probe := await self.probe()).trouble:
            raise Unavailable(f"Xen makes no domain on this host: {probe.trouble}", hint=probe.hint)
        domain = f"{_OURS}{config.name[:_NAMED]}-{uuid.uuid4().hex[:8]}"
        config.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with contextlib.AsyncExitStack() as undo:
            with contextlib.ExitStack() as held:
                disks = loops([d for d in config.disks if isinstance(d, Disk)], held)
                started = await self._start(config, domain, disks.paths)
                machine = XenMachine(config.directory, started, domain, names(config), macs(config))
                undo.push_async_callback(machine.kill)
                domid = await self._made(machine)
                await disks.hand_over(domid)
            await self._join(machine, domid)
            await bring_up(machine, domid, config, machine.resume, self._boot_timeout)
            undo.pop_all()
        machine.watch()
        return machine

    async def _start(self, config: MachineConfig, domain: str, loops: Sequence[str]) -> Started:
        text = document(config, domain, loops, str(tools.binary("true")))
        (config.directory / _DOCUMENT).write_text(text)
        line = (str(tools.binary("xl")), "create", "-F", "-p", str(config.directory / _DOCUMENT))
        log.debug("launching %s", process.command_line(line))
        output = os.open(config.directory / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            order = Order(
                args=line, user=os.geteuid(), output=output, control_groups=config.control_groups,
                environment={**tools.environment(), **found.mark(self.name, config.directory), _NAME: domain},
            )  # fmt: skip
            return await PlainJail().spawn(order, partial(found.write, self.name, config.directory))
        finally:
            os.close(output)

    async def _made(self, machine: XenMachine) -> int:
        """The domain's number, once xl has made it.

        :raise Unavailable: xl fails, or does not come to that in time.
        """
        clock = asyncio.get_running_loop().time
        end = clock() + self._boot_timeout
        while True:
            alive = machine.alive
            if made := _MADE.search(machine.log()):
                return int(made[1])
            if not alive:
                raise Unavailable(f"xl made no domain: {tools.complaint(machine.log()) or 'it said nothing'}")
            if clock() > end:
                raise Unavailable(f"xl made no domain within {self._boot_timeout:g} s")
            await asyncio.sleep(_LOOK)

    async def _join(self, machine: XenMachine, domid: int) -> None:
        """Find the agent's console.

        :raise Unavailable: this xl gives a domain none.
        """
        name = (await tools.ask("xenstore-read", f"{console(domid)}/name")).strip()
        channel(machine.directory, name).rename(machine.directory / CHANNEL)

    async def reattach(self, handle: Mapping[str, Any]) -> XenMachine | None:
        """A domain whose xl has ended has none that frees what it had: it ends now."""
        machine = XenMachine.of(handle)
        if not machine.alive:
            if tools.is_dom0():
                await machine.kill()
            return None
        with contextlib.suppress(HyperError, ValueError):
            await machine.listen(int(await tools.ask("xl", "domid", machine.domain)))
        machine.watch()
        return machine

    def strays(self, parent: Path, keep: Container[Path]) -> list[Machine]:
        """A domain's QEMU has the same environment as its xl: it stands for one whose xl was killed. Others' domains
        are not ours."""
        left = [(f, process.variable(f.pid, _NAME) or "") for f in found.strays(self.name, parent, keep)]
        held = {domain for pid, domain in process.with_variable(_NAME) if _is_xl(pid)}
        return [
            XenMachine(f.directory, Started(f.pid, f.started), domain, {})
            for f, domain in left
            if domain.startswith(_OURS) and (_is_xl(f.pid) or domain not in held)
        ]


def _is_xl(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip() == "xl"
    return False
