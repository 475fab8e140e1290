# SPDX-License-Identifier: Apache-2.0
"""A container's own filter of system calls."""

from __future__ import annotations

from ..model import architectures
from ..model.signals import ALL_CAPABILITIES, capability_mask
from ..model.specs import ContainerSpec
from ..seccomp import Filter, compiled


def capabilities_of(spec: ContainerSpec) -> int | None:
    """A bit mask of CAP_*; None: all."""
    return None if spec.privileged else capability_mask(spec.cap_add, spec.cap_drop)


def filter_of(spec: ContainerSpec, architecture: str) -> Filter | None:
    """Of the container's own seccomp profile, on a machine of this architecture; None where it has none.

    That takes a process of its own, and so a thread of the caller's; once it is known it takes no time.

    :raise InvalidArgument: it is no profile. :raise Unsupported, Unavailable: it cannot be in force.
    """
    if not spec.seccomp_profile:
        return None
    capabilities = capabilities_of(spec)
    return compiled(
        spec.seccomp_profile, architecture or architectures.host(),
        ALL_CAPABILITIES if capabilities is None else capabilities,
    )  # fmt: skip
