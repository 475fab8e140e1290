# SPDX-License-Identifier: Apache-2.0
"""Who is limited, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from ...errors import NotFound
from ...model.principal import Tenant
from ...model.quotas import Quota
from ..tenants import Tenants
from .holders import Holder


class Limits:
    """What projects' records say of them, and the daemon's configuration of principals."""

    def __init__(self, principals: Mapping[str, Quota], tenants: Tenants) -> None:
        """Names of principals, or patterns with `*`, each of whom may have so much; the first that fits is theirs."""
        self._principals = principals
        self._tenants = tenants

    def __call__(self, tenant: Tenant, owner: str) -> Iterator[tuple[Holder, Quota]]:
        """Who is limited of those whose a thing with this tenant and owner is.

        :raise NotFound: the project is gone; what is asked was asked before.
        """
        if project := self._tenants.project(tenant):
            yield Holder(f"project {project.name}", tenant), project.quota
        elif tenant:
            raise NotFound("the project is gone, and nothing is made in it any more", hint="see `hyperctl project ls`")
        quota = next((q for pattern, q in self._principals.items() if owner and fnmatchcase(owner, pattern)), None)
        if quota is not None:
            yield Holder(owner, tenant, owner), quota
