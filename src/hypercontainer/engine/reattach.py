# SPDX-License-Identifier: Apache-2.0
"""Machines to which a connection is opened again: those that an earlier daemon left, and those that lost theirs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from ..errors import HyperError
from ..guest.agent import Agent
from ..guest.greet import find
from ..hypervisor.driver import Machine
from ..hypervisor.drivers import Drivers
from ..hypervisor.facets import Pause, require
from ..jail.jail import Started
from ..model.status import Pod, PodStatus
from ..sys.trees import remove_tree
from .allotments import Allotments
from .runtime import Runtime, handle_of

log = logging.getLogger(__name__)


class Reattacher:
    """Finds each by the driver that launched it."""

    def __init__(self, drivers: Drivers, allotments: Allotments) -> None:
        self._drivers = drivers
        self._allotments = allotments

    async def kill_machine(self, pod: Pod) -> None:
        """End a VM that an earlier daemon left, without a word with its guest."""
        if pod.vm and (machine := await self.left_behind(pod)):
            await machine.kill()
            remove_tree(Path(pod.vm.directory))
            self._allotments.find(pod.vm.allotment, pod.vm.user).give_back()

    async def reattach(self, pod: Pod) -> Runtime | None:
        """The running VM that an earlier daemon left; None when it has ended or does not answer."""
        vm = pod.vm
        if vm is None:
            return None
        directory, allotment = Path(vm.directory), self._allotments.find(vm.allotment, vm.user)
        machine = await self.left_behind(pod)
        if machine is None:
            remove_tree(directory)
            allotment.give_back()
            return None
        token = bytes.fromhex(vm.token)
        if vm.saving:  # it may stand still, and would not answer
            with contextlib.suppress(HyperError):
                await require(machine, Pause).resume()
        agent = await self._wake(
            machine, lambda: find(machine.connect, machine.wait, token), paused=pod.status is PodStatus.PAUSED
        )
        if agent is None:
            log.warning("pod %s: its VM does not answer and is ended: %s", pod.name, machine.last_words())
            await machine.kill()
            remove_tree(directory)
            allotment.give_back()
            return None
        agent.kill_orphans(keep=set(vm.processes.values()))  # execs, and what else was the earlier daemon's
        return Runtime(
            machine,
            agent,
            directory,
            allotment,
            nics=dict(vm.nics),
            spares=set(vm.spares),
            devices=dict(vm.devices),
            disks=set(vm.disks),
            names=dict(vm.disk_names),
            directories=vm.directories,
            server=Started(*vm.server) if vm.server else None,
            late=dict(vm.late),
            user_network=vm.user_network,
            layout=vm.layout,
            volumes=dict(vm.volumes),
            built=set(vm.built),
            given_back=None,
            processes=dict(vm.processes),
        )

    async def renew(self, runtime: Runtime, *, paused: bool) -> bool:
        """Another connection in place of one that was lost, and all that it carried; False when there is none."""
        machine = runtime.machine
        agent = await self._wake(machine, lambda: runtime.agent.renew(machine.connect, machine.wait), paused=paused)
        if agent is None:
            return False
        runtime.agent = agent
        return True

    async def left_behind(self, pod: Pod) -> Machine | None:
        """The machine that an earlier daemon left to this pod, whatever it does."""
        return await self._drivers.get(pod.vm.driver).reattach(handle_of(pod.vm)) if pod.vm else None

    @staticmethod
    async def _wake(
        machine: Machine, connected: Callable[[], Awaitable[Agent | None]], *, paused: bool
    ) -> Agent | None:  # fmt: skip
        """Its agent, which `connected` gives when the machine does not stand still; None when it does not answer."""
        agent = None
        try:
            if paused:  # or it would not answer
                await require(machine, Pause).resume()
            agent = await connected()
            if paused and agent:
                await require(machine, Pause).pause()
        except HyperError as error:
            log.warning("a virtual machine does not wake up: %s", error)
            if agent:
                agent.close()
            return None
        except asyncio.CancelledError:
            machine.detach()
            raise
        return agent
