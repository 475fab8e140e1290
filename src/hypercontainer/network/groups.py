# SPDX-License-Identifier: Apache-2.0
"""Security groups of running pods, as the rules of the host take them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from ..model.network import Attachment
from ..model.principal import Tenant
from ..model.security_groups import GroupRule, SecurityGroup
from ..model.status import Pod
from .addresses import mac_of
from .backend import Records
from .group_rules import Grouped, Members

GroupsOf = Callable[[Tenant], Sequence[SecurityGroup]]  # all groups of a tenant


class Groups:
    """By the records. A pod in a group that is gone is reached by nobody."""

    def __init__(self, records: Records, groups: GroupsOf) -> None:
        self._records = records
        self._groups = groups

    def of_nic(self, pod: Pod, attachment: Attachment) -> Grouped | None:
        """None: the pod is in no group."""
        if not pod.spec.security_groups:
            return None
        ids = {g.name: g.id for g in self._groups(pod.tenant)}
        rules = tuple(resolved for r in self._rules(pod) if (resolved := _by_id(r, ids)))
        return Grouped(mac_of(self._records.network_of(attachment).gateway), rules)

    def _rules(self, pod: Pod) -> list[GroupRule]:
        return [r for g in self._groups(pod.tenant) if g.name in pod.spec.security_groups for r in g.rules]

    def members(self, running: Iterable[Pod]) -> tuple[Members, ...]:
        """Of all groups that rules of these name: those who run."""
        pods = list(running)
        found: dict[str, Members] = {}
        for pod in pods:
            named = {r.group for r in self._rules(pod) if r.group} if pod.spec.security_groups else set()
            for group in self._groups(pod.tenant) if named else ():
                if group.name in named and group.id not in found:
                    inside = [p for p in pods if p.tenant == pod.tenant and group.name in p.spec.security_groups]
                    own = (x for p in inside for a in p.attachments for x in (a.ip, a.ip6) if x)
                    found[group.id] = Members(group.id, tuple(own))
        return tuple(found[id_] for id_ in sorted(found))


def _by_id(rule: GroupRule, ids: dict[str, str]) -> GroupRule | None:
    """None: the group that it names is gone, and so nobody is in it."""
    if not rule.group:
        return rule
    return msgspec.structs.replace(rule, group=ids[rule.group]) if rule.group in ids else None
