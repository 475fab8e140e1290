# SPDX-License-Identifier: Apache-2.0
"""A container's states, and what can be asked of who owns it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ..guest.agent import Process
from ..model.status import ContainerStatus
from .runtime import Runtime
from .supervisor import Message

LIVE = (ContainerStatus.RUNNING, ContainerStatus.PAUSED, ContainerStatus.RESTARTING)  # it may take time to end


class State(StrEnum):
    """What a container does. Its record's status is for its users: `starting` and `ending` are not told there."""

    REATTACHING = "reattaching"  # it ran under an earlier daemon, and its sandbox has not answered yet
    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    RESTARTING = "restarting"  # waits for its policy's next start, or is in it
    ENDING = "ending"  # its end is known, its machine is given back
    EXITED = "exited"
    LENT = "lent"  # its files are copied while it does not run
    REMOVING = "removing"
    GONE = "gone"


@dataclass(eq=False)
class Start(Message):
    """Answered when the program runs: whether this message started it. `size` are rows and columns of its terminal."""

    size: tuple[int, int] = (0, 0)


@dataclass(eq=False)
class Stop(Message):
    """Its stop signal, or another one, and SIGKILL after `timeout` seconds (its own when None).

    Answered when its machine is given back: whether it ran.
    """

    timeout: int | None = None
    signal: int = 0  # its own
    daemon_ends: bool = False  # nobody asked for it


@dataclass(eq=False)
class Kill(Message):
    """A signal; SIGKILL is answered when the container has ended."""

    signal: int


@dataclass(eq=False)
class Pause(Message):
    """Freeze its processes."""


@dataclass(eq=False)
class Unpause(Message):
    """Let them go on."""


@dataclass(eq=False)
class Remove(Message):
    """With its files, and the volumes that nobody named where these are wanted too; a running one only by `force`."""

    force: bool = False
    volumes: bool = False


@dataclass(eq=False)
class Borrow(Message):
    """Keep it from being started or removed until it is returned, for a copy: whether it does not run."""


@dataclass(eq=False)
class Return(Message):
    """What was borrowed by that message, or is not wanted any more."""

    borrow: Borrow


@dataclass(eq=False)
class Replace(Message):
    """Its liveness check has failed: end it, and start it again."""


@dataclass(eq=False)
class Reattach(Message):
    """Go on with the process that an earlier daemon started."""

    runtime: Runtime
    handle: Process


@dataclass(eq=False)
class Resume(Message):
    """Start it by its policy: an earlier daemon was about to, or it ran when the host went down."""


@dataclass(eq=False)
class Lose(Message):
    """Its machine is gone, with all that ran there; answered when that is settled."""

    why: str
