# SPDX-License-Identifier: Apache-2.0
"""The port to an attached client. A front end implements `Peer` over its own connection, and decides nothing.

REST       frames both ways (`api/upgrade.py`)
Docker     a hijacked connection: what comes is input, its end the end of input; output is raw for a terminal,
           and has Docker's 8-byte headers else (`frame`); sizes come by another request (`AttachSession.resize`)
CRI        SPDY's streams, or a websocket's channels: input, two outputs, errors, sizes
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ...model.frames import HEADER


def frame(kind: int, payload: bytes) -> bytes:
    """Docker's: `kind:u8 0 0 0 length:u32 big-endian payload`; 1 is stdout, 2 stderr."""
    return HEADER.pack(kind, len(payload)) + payload


@dataclass(frozen=True)
class Input:
    """Bytes for the process's stdin."""

    data: bytes


@dataclass(frozen=True)
class InputEnd:
    """No more input comes; output goes on."""


@dataclass(frozen=True)
class Resize:
    """The client's terminal has another size, in characters."""

    rows: int
    columns: int


Said = Input | InputEnd | Resize


@dataclass(frozen=True)
class End:
    """How a session ended; of these, one is so."""

    exit_code: int | None = None  # of the process; None: it goes on, or did not start
    detached: bool = False  # by the keys
    error: Exception | None = None  # it could not be started, or what the client sent is not understood
    message: str = ""  # why the process ended, when that was not the program; what was not shown of its output


class Peer(Protocol):
    """One attached client. Only one task receives, and only one sends."""

    async def open(self) -> None:
        """The attachment stands; output may come. :raise ConnectionError: the client has gone."""

    async def receive(self) -> Said | None:
        """What the client says next; None when it has gone. It is not called while much input waits.

        :raise InvalidArgument: what it says is not understood.
        """

    async def send(self, stream: int, data: bytes) -> None:
        """Output for the client; returns when there is room for more. :raise ConnectionError: it has gone."""

    async def finish(self, end: End) -> None:
        """The last word; the connection ends with it. Of a client that has gone nothing is raised."""


@runtime_checkable
class Watched(Protocol):
    """A peer that knows whether its client has gone, for processes that are bound to theirs."""

    @property
    def gone(self) -> bool:
        """The client has gone; not so when the daemon ends and lets go of it."""
