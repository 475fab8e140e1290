# SPDX-License-Identifier: Apache-2.0
"""What metering asks of the rest of the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec import UNSET

from ...model.metering import Kind, Subject
from ...model.principal import Tenant
from ...model.status import Pod


@dataclass(frozen=True)
class Sources:
    """Whose things are metered, and what is known of them."""

    active: Callable[[], bool]  # whether anything is
    wanted: Callable[[Tenant], bool]  # whether what is a tenant's is
    tenants: Callable[[], list[Tenant]] = list  # those that are
    payer: Callable[[Tenant], str] = lambda tenant: ""  # the organisation of a project
    last_write: Callable[[str], int] = lambda pod_id: 0  # milliseconds since the epoch, to a disk of a pod's
    suspended: Callable[[str], int] = lambda pod_id: 0  # bytes that a suspended pod's memory takes

    def subject(self, kind: Kind, id_: str, name: str, tenant: Tenant, *, size: str = "", amount: int = 0) -> Subject:
        """A tenant's, whom its organisation pays for now; `amount` is MiB."""
        payer = self.payer(tenant)
        return Subject(kind=kind, id=id_, name=name, tenant=tenant or "", payer=payer, size=size, amount=amount)


def charged(pod: Pod) -> Tenant:
    """Whose use a pod is."""
    return pod.tenant or pod.spec.charged or UNSET
