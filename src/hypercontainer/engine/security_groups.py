# SPDX-License-Identifier: Apache-2.0
"""Security groups: made, changed, and given to pods, also while these run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

import msgspec

from ..errors import Conflict, HyperError, Unsupported
from ..model import ids
from ..model.base import given_fields
from ..model.quotas import Amounts
from ..model.security_groups import (
    GROUPS_MAX,
    GroupRule,
    SecurityGroup,
    SecurityGroupInfo,
    SecurityGroupSpec,
    SecurityGroupUpdate,
)
from ..model.status import Pod
from ..sys import clock, tasks
from . import naming
from .events import Events
from .pod_network import PodNetwork
from .pod_specs import pod_of, put_spec
from .principal import owned
from .registry import Registry

_MAX = 100  # groups of a tenant


class SecurityGroups:
    """What is said of them is in force when a verb returns; when it cannot be, all is as it was."""

    def __init__(self, registry: Registry, network: PodNetwork, events: Events) -> None:
        self._registry = registry
        self._records = registry.groups
        self._network = network
        self._events = events
        self._changing = asyncio.Lock()  # what one takes back is not another's

    def create(self, spec: SecurityGroupSpec) -> SecurityGroup:
        """:raise InvalidArgument: malformed. :raise Conflict: the name is taken, or there are too many.
        :raise NotFound: a rule names a group that is not there. :raise NoSpace: the disk is full.
        :raise QuotaExceeded: no more may be had.
        """
        naming.check("security group", spec.name)
        made = SecurityGroup(
            id=ids.new_id(), name=spec.name, created_at=clock.stamp(), description=spec.description, rules=spec.rules,
            **owned(),
        )  # fmt: skip
        theirs = self._records.of(made.tenant)
        if any(g.name == spec.name for g in theirs):
            raise Conflict(f"there is a security group {spec.name} already", hint="choose another name")
        if len(theirs) >= _MAX:
            raise Conflict(f"there are {_MAX} security groups already", hint="remove one")
        self._check(spec.rules, own=spec.name)
        with self._registry.quotas.admitted({made.id: Amounts(security_groups=1)}):
            self._records.put(made)
        self._tell("create", made)
        return made

    def _check(self, rules: Iterable[GroupRule], own: str) -> None:
        self._records.check([r.group for r in rules if r.group and r.group != own])

    def all(self) -> list[SecurityGroupInfo]:
        """Those that one sees, by name."""
        return [self._told(g) for g in naming.seen(self._records.all())]

    def info(self, key: str) -> SecurityGroupInfo:
        """:raise NotFound: there is none."""
        return self._told(self._records.find(key))

    def _told(self, group: SecurityGroup) -> SecurityGroupInfo:
        return SecurityGroupInfo(group=group, pods=sorted(p.name for p in self._inside(group)))

    def _inside(self, group: SecurityGroup) -> list[Pod]:
        pods = self._registry.pods()
        return [p for p in pods if p.tenant == group.tenant and group.name in p.spec.security_groups]

    async def update(self, key: str, change: SecurityGroupUpdate) -> SecurityGroupInfo:
        """:raise NotFound: it is not there, or a group that a rule names. :raise Unavailable: the rules are refused."""
        async with self._changing:
            before = self._records.find(key)
            after = msgspec.structs.replace(before, **given_fields(change))
            self._check(after.rules, own=after.name)
            self._records.put(after)
            try:
                await self._network.refresh()
            except BaseException:
                with contextlib.suppress(HyperError):
                    self._records.put(before)
                    await tasks.to_the_end(self._network.refresh())
                raise
        self._tell("update", after)
        return self._told(after)

    async def remove(self, key: str) -> None:
        """:raise NotFound: it is not there. :raise Conflict: a pod is in it, or a rule of another group names it."""
        async with self._changing:
            group = self._records.find(key)
            if inside := self._inside(group):
                raise Conflict(f"pod {inside[0].name} is in security group {group.name}",
                               hint=f"`hyperctl sg detach {group.name} {inside[0].name}` first")  # fmt: skip
            for other in self._records.of(group.tenant):
                if other.id != group.id and any(r.group == group.name for r in other.rules):
                    raise Conflict(f"a rule of security group {other.name} names {group.name}",
                                   hint=f"change {other.name} first")  # fmt: skip
            self._records.remove(group)
        self._tell("destroy", group)

    # -- pods ---------------------------------------------------------------------------

    async def attach(self, key: str, pod: str) -> Pod:
        """`pod` is a pod's, or that of a container which has a pod of its own. Idempotent.

        :raise NotFound: one is not there. :raise Conflict: it is in too many. :raise Unsupported: its network has no
        rules. :raise Unavailable: the rules are refused; all is as it was.
        """
        return await self._set(key, pod, True)

    async def detach(self, key: str, pod: str) -> Pod:
        """As `attach`; with its last group all reaches it again."""
        return await self._set(key, pod, False)

    async def _set(self, key: str, pod_key: str, inside: bool) -> Pod:
        async with self._changing:
            group = self._records.find(key)
            pod = pod_of(self._registry, pod_key, "a security group", "name the pod, {pod}")
            before = pod.spec.security_groups
            after = [*(n for n in before if n != group.name), *([group.name] if inside else [])]
            if sorted(after) == sorted(before):
                return pod
            if len(after) > GROUPS_MAX:
                raise Conflict(f"a pod is in {GROUPS_MAX} security groups at most", hint="detach another one first")
            if inside and not self._network.has_rules(pod):
                raise Unsupported("the pod's network has no security groups",
                                  hint="use a network of this host, such as --network bridge")  # fmt: skip
            await self._put(pod.id, after, before)
            self._tell("attach" if inside else "detach", group, pod=pod.id, podName=pod.name)
            return self._registry.pod(pod.id)

    async def _put(self, pod_id: str, after: list[str], before: list[str]) -> None:
        put_spec(self._registry, pod_id, security_groups=after)
        try:
            await self._network.refresh()
        except BaseException:
            if self._registry.has_pod(pod_id):
                put_spec(self._registry, pod_id, security_groups=before)
            with contextlib.suppress(HyperError):
                await tasks.to_the_end(self._network.refresh())
            raise

    def _tell(self, action: str, group: SecurityGroup, **attributes: str) -> None:
        self._events.publish(
            "security-group", action, group.id, of=None, tenant=group.tenant, name=group.name, **attributes
        )
