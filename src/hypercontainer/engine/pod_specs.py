# SPDX-License-Identifier: Apache-2.0
"""A pod's specification, and what the container of its own was asked for: changed together."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from ..errors import InvalidArgument, NotFound
from ..model.status import Container, Pod
from .registry import Registry

R = TypeVar("R", Pod, Container)


def pod_of(registry: Registry, key: str, what: str, hint: str) -> Pod:
    """A pod, or the one that is a container's own.

    :raise NotFound: there is neither. :raise InvalidArgument: of a container in a pod with others: `what` is the pod's,
    and `hint` says with {pod} what to do.
    """
    try:
        return registry.pod(key)
    except NotFound:
        container = registry.container(key)
    pod = registry.pod(container.pod)
    if pod.implicit:
        return pod
    raise InvalidArgument(f"{what} is the pod's, not a container's in it", hint=hint.format(pod=pod.name))


def with_spec(record: R, **given: Any) -> R:
    """With other fields of its specification."""
    return msgspec.structs.replace(record, spec=msgspec.structs.replace(record.spec, **given))


def put_spec(registry: Registry, pod_id: str, **given: Any) -> None:
    """The pod's, and what the container of its own was asked for."""
    pod = registry.pod(pod_id)
    members = registry.members(pod_id) if pod.implicit else []
    registry.put_together(with_spec(pod, **given), *(with_spec(c, **given) for c in members))
