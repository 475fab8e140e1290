# SPDX-License-Identifier: Apache-2.0
"""What the daemon tells about its VM factory. Sizes are in bytes."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from .base import Model


class TemplateInfo(Model, frozen=True, kw_only=True):
    """A machine that was saved, from which others start."""

    shape: str
    image: str = ""  # of the container that it has ready: the begin of its disk's name
    key: str
    made_at: str
    memory: int
    clones: int


class PoolInfo(Model, frozen=True, kw_only=True):
    """Machines that wait for a container; those of an image have one of it ready."""

    shape: str
    image: str = ""  # the begin of its disk's name
    waiting: int
    target: int


class FactoryStatus(Model, frozen=True, kw_only=True):
    """Templates, and the pool of machines that wait."""

    enabled: bool
    templates: list[TemplateInfo]
    pool: list[PoolInfo]
    template_limit: int
    pool_limit: int
    pool_memory: int
    started: dict[str, int] = field(default_factory=dict)  # by where the machine came from: pool, clone, cold


class WarmRequest(Model, frozen=True, kw_only=True):
    """The shape of machines to keep ready; 0 and "" are the daemon's defaults."""

    cpus: Annotated[int, Meta(ge=0, le=64)] = 0
    memory: Annotated[int, Meta(ge=0)] = 0
    network: str = ""
    count: Annotated[int, Meta(ge=0, le=1000)] = 1


class Drained(Model, frozen=True, kw_only=True):
    """How many machines were ended."""

    ended: int
