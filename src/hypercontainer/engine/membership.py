# SPDX-License-Identifier: Apache-2.0
"""What a container in a pod cannot have of its own, since the pod has one for all of its containers."""

from __future__ import annotations

from ..errors import InvalidArgument
from ..model.specs import ContainerSpec

# Fields of a container's specification that are for a pod of its own, and what they are called.
_OF_THE_POD = {
    "egress": "an egress policy",
    "allow": "what may be reached",
    "security_groups": "a security group",
    "egress_rate": "a limit of what is sent",
    "ingress_rate": "a limit of what is received",
    "network": "the network",
    "networks": "the network",
    "ttl": "a time to live",
    "idle_timeout": "an idle timeout",
}


def check_member(spec: ContainerSpec) -> None:
    """Of a container in a pod. :raise InvalidArgument: it asks for what is the pod's, and would not have it."""
    for name, called in _OF_THE_POD.items():
        if getattr(spec, name):
            raise InvalidArgument(f"{called} is the pod's, not a container's in it",
                                  hint="give it to the pod, by its podfile")  # fmt: skip
