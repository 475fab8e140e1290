# SPDX-License-Identifier: Apache-2.0
"""How long pods live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from .base import Model
from .units import parse_duration

Span = Annotated[float, Meta(ge=0, le=10 * 366 * 86400)]  # seconds, 0 is no limit
TtlAction = Literal["stop", "suspend"]
LABELS = {"ttl": "hypercontainer.ttl", "idle_timeout": "hypercontainer.idle-timeout"}


def of_labels(labels: Mapping[str, str]) -> dict[str, Any]:
    """`ttl` and `idle_timeout`, of those who have only labels to say it by; what is not said is left out.

    :raise InvalidArgument: one is no duration.
    """
    return {name: parse_duration(labels[label]) for name, label in LABELS.items() if labels.get(label)}


class Lifetime(Model, frozen=True, kw_only=True):
    """What a pod is to have from now on; what is None stays as it is."""

    ttl: Span | None = None  # counted from now
    ttl_action: TtlAction | None = None
    idle_timeout: Span | None = None


class LifetimeInfo(Model, frozen=True, kw_only=True):
    """What it has."""

    ttl: Span
    ttl_action: TtlAction
    idle_timeout: Span
    ends_at: str  # RFC 3339 in UTC; "" of one that has no ttl, or does not run
