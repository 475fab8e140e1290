# SPDX-License-Identifier: Apache-2.0
"""A sandbox's states, and what can be asked of who owns it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ..errors import InvalidState
from ..model.status import Pod, PodStatus
from .runtime import Runtime
from .supervisor import Message


class State(StrEnum):
    """What the VM does."""

    REATTACHING = "reattaching"  # an earlier daemon left it, and it has not answered yet
    DOWN = "down"
    BOOTING = "booting"
    UP = "up"
    PAUSED = "paused"
    SUSPENDING = "suspending"  # it is put on the disk
    SUSPENDED = "suspended"  # it is there, and nowhere else
    RESUMING = "resuming"
    ENDING = "ending"


@dataclass(eq=False)
class Acquire(Message):
    """Use the machine, booted when it is not up; answered with its `Runtime`."""

    user: str


@dataclass(eq=False)
class Release(Message):
    """Use it no longer; answered when it is down, if that was the last user. `clean` syncs its disks first."""

    user: str
    clean: bool = True


@dataclass(eq=False)
class Work(Message):
    """Something with the running guest, one after the other: a container is built, or taken out."""

    work: Callable[[Runtime], Coroutine[Any, Any, None]]


@dataclass(eq=False)
class Down(Message):
    """End the machine, whoever uses it; answered when it has ended."""

    clean: bool = True


@dataclass(eq=False)
class GiveUp(Message):
    """End a machine that has not answered since the daemon's start; answered when it has: whether there was one."""


@dataclass(eq=False)
class Pause(Message):
    """Stop its CPUs."""


@dataclass(eq=False)
class Unpause(Message):
    """Let them go on."""


@dataclass(eq=False)
class Suspend(Message):
    """Put it on the disk, by a `work` after which it stands still; answered when it is ended."""

    work: Callable[[Runtime], Coroutine[Any, Any, None]]


@dataclass(eq=False)
class Resume(Message):
    """Let it go on from there, by a `work` that is given what others hold of it, if they do; answered with its
    `Runtime`, or False when it is not suspended.
    """

    work: Callable[[Runtime | None], Coroutine[Any, Any, Runtime]]


@dataclass(eq=False)
class Reattached(Message):
    """The machine that an earlier daemon left answers, or is gone (None)."""

    runtime: Runtime | None


def check_awake(pod: Pod) -> None:
    """:raise InvalidState: when the pod is paused or suspended: its guest would not answer."""
    if pod.status is PodStatus.PAUSED:
        raise InvalidState(f"pod {pod.name} is paused", hint=f"use `hyperctl pod unpause {pod.name}`")
    check_not_suspended(pod)


def check_not_suspended(pod: Pod) -> None:
    """:raise InvalidState: when it is suspended."""
    if pod.status is PodStatus.SUSPENDED:
        raise InvalidState(f"pod {pod.name} is suspended", hint=f"use `hyperctl pod resume {pod.name}`")
