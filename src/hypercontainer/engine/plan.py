# SPDX-License-Identifier: Apache-2.0
"""Whether a pod can be created as asked, and the order of its containers."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

from ..errors import Conflict, InvalidArgument
from ..model.base import encode
from ..model.pods import PodPlan, PodSpec
from ..model.specs import MEMORY_MIN, ContainerSpec
from ..model.status import Container
from . import membership, resolve
from .secrets import SIZE_MAX, check_name
from .services import check_services


def check_plan(plan: PodPlan) -> None:
    """All that needs neither images nor files.

    :raise InvalidArgument: with what is wrong. :raise Conflict: a name given twice.
    """
    encode(plan)
    names = [c.name for c in plan.containers if c.name]
    if len(set(names)) != len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise Conflict(f"two containers are called {twice!r}", hint="rename one")
    for c in plan.containers:
        resolve.validate(c)
        membership.check_member(c)
        for s in c.secrets:
            if s.secret not in plan.secrets:
                raise InvalidArgument(
                    f"container {c.name or c.image}: there is no secret {s.secret!r}", hint="define it below `secrets`"
                )
    for name, value in plan.secrets.items():
        check_name(name)
        if len(value) > SIZE_MAX:
            raise InvalidArgument(f"secret {name!r} is larger than {SIZE_MAX >> 10} KiB", hint="use a volume for it")
    resolve.check_hostname(plan.hostname)
    if 0 < plan.memory < MEMORY_MIN:
        raise InvalidArgument("the pod's memory is too small", hint=f"give at least {MEMORY_MIN >> 20} MB")
    _check_network(plan.spec)
    _check_order(plan.containers)


def _check_network(spec: PodSpec) -> None:
    check_services(spec.services)
    if sum(bool(i.gateway) for i in spec.interfaces) > 1:
        raise InvalidArgument("more than one interface has a gateway", hint="give one at most")
    for i in spec.interfaces:
        if i.bridge and not i.addresses:
            raise InvalidArgument(
                f"the interface on bridge {i.bridge} has no address", hint="give `ip` as 192.168.1.2/24"
            )


def _check_order(containers: list[ContainerSpec]) -> None:
    known = {n for c in containers for n in (c.name, *c.aliases)}
    graph: dict[str, set[str]] = {}
    for c in containers:
        for d in c.depends_on:
            if d.container not in known:
                raise InvalidArgument(
                    f"container {c.name}: it depends on {d.container!r}, which the pod does not have",
                    hint=f"the pod has {', '.join(sorted(n for n in known if n)) or 'no named container'}",
                )
        graph[c.name] = {_called(containers, d.container) for d in c.depends_on}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise InvalidArgument(
            f"the containers depend on each other in a circle: {circle}", hint="leave one dependency out"
        ) from None


def _called(containers: list[ContainerSpec], name: str) -> str:
    return next(c.name for c in containers if name == c.name or name in c.aliases)


def find(members: list[Container], name: str) -> Container | None:
    """The member of that name or alias; None when it was removed."""
    return next((c for c in members if name == c.name or name in c.spec.aliases or name == c.spec.name), None)


def levels(members: list[Container]) -> list[list[Container]]:
    """Groups of which each depends on earlier ones only."""
    by_id = {c.id: c for c in members}
    graph = {c.id: {o.id for d in c.spec.depends_on if (o := find(members, d.container))} for c in members}
    sorter = TopologicalSorter(graph)
    sorter.prepare()
    out = []
    while sorter.is_active():
        ready = sorter.get_ready()
        out.append([by_id[i] for i in ready])
        sorter.done(*ready)
    return out
