# SPDX-License-Identifier: Apache-2.0
"""`update`: other limits, another restart policy and another egress policy for what is there."""

from __future__ import annotations

import msgspec

from ..errors import InvalidState
from ..guest.agent import UpdateLimits, require
from ..model.specs import ContainerSpec, ContainerUpdate
from ..model.status import Container, Pod
from ..model.units import format_binary
from ..protocol.messages import Limits
from . import resolve
from .container_verbs import State
from .containers import Containers
from .egress_updates import EgressUpdates
from .events import Events
from .pod_network import PodNetwork
from .registry import Registry
from .sandbox_verbs import check_not_suspended
from .sandboxes import Sandboxes

_LIVE = (State.RUNNING, State.PAUSED)
_AT_REST = (State.CREATED, State.EXITED)


def _changed(spec: ContainerSpec, change: ContainerUpdate) -> ContainerSpec:
    given = {name: value for name in ("cpus", "memory", "pids") if (value := getattr(change, name)) is not None}
    resources = msgspec.structs.replace(spec.resources, **given)
    return msgspec.structs.replace(spec, resources=resources, restart=change.restart or spec.restart)


class Updates:
    """Changes what containers may use, and what their pods may reach."""

    def __init__(
        self, registry: Registry, containers: Containers, sandboxes: Sandboxes, network: PodNetwork, events: Events
    ) -> None:
        self.egress = EgressUpdates(registry, network, events)
        self._registry = registry
        self._sandboxes = sandboxes
        self._containers = containers

    async def update(self, key: str, change: ContainerUpdate) -> Container:
        """At once in a container that runs, within what its machine has; a machine of its own has as much at its start.

        :raise InvalidArgument: a value is wrong. :raise InvalidState: not now, or its machine has not as much.
        :raise Unsupported: its guest is older than this. :raise GuestError: it holds more memory than it is to have.
        """
        container = self._registry.container(key)
        spec = _changed(container.spec, change)
        resolve.validate(spec)
        pod = self._registry.pod(container.pod)
        state = self._containers.supervisor(container).state
        check_not_suspended(pod)
        if state in _LIVE:
            _check_machine(pod, spec)
            await self._limit(container, pod, spec)
        elif state not in _AT_REST:
            raise InvalidState(f"container {container.name} is {state}", hint="try again when it runs, or has ended")
        elif pod.implicit:
            self._resize(pod, spec)
        else:
            _check_machine(pod, spec)
        now = self._registry.container(container.id)  # it may have another name by now, or be gone
        updated = msgspec.structs.replace(now, spec=_changed(now.spec, change))
        self._registry.put(updated)
        self._sandboxes.limit_cpus(pod.id)
        await self._sandboxes.give_back(pod.id)
        self._containers.supervisor(updated).publish("update", updated)
        return updated

    async def _limit(self, container: Container, pod: Pod, spec: ContainerSpec) -> None:
        before, after = container.spec.resources, spec.resources
        limits = Limits(
            memory_max=resolve.memory_max(spec, pod.memory) if after.memory != before.memory else None,
            cpu_max=resolve.cpu_max(spec) if after.cpus != before.cpus else None,
            pids_max=after.pids if after.pids != before.pids else None,
        )
        if limits != Limits():
            agent = self._containers.runtime(container).agent
            await require(agent, UpdateLimits).update_limits(container.id[:12], limits)

    def _resize(self, pod: Pod, spec: ContainerSpec) -> None:
        """The machine of its own that it is started in."""
        vcpus, memory = resolve.machine_size([spec])
        resolve.check_host(vcpus, memory)
        if (vcpus, memory) != (pod.vcpus, pod.memory):
            self._registry.put_pod(msgspec.structs.replace(pod, vcpus=vcpus, memory=memory))


def _check_machine(pod: Pod, spec: ContainerSpec) -> None:
    """:raise InvalidState: when the pod's machine has less."""
    wanted, most = spec.resources, pod.memory - resolve.GUEST_RESERVE
    if wanted.memory > most:
        what = f"{format_binary(wanted.memory)} of memory are more than the {format_binary(most)}"
    elif wanted.cpus > pod.vcpus:
        what = f"{wanted.cpus:g} CPUs are more than the {pod.vcpus}"
    else:
        return
    hint = "stop it first: it starts with as much" if pod.implicit else "its pod has no more"
    raise InvalidState(f"{what} that the virtual machine of {pod.name} has", hint=hint)
