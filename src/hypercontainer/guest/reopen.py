# SPDX-License-Identifier: Apache-2.0
"""A connection with a guest that had one before, which may have broken at any byte."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..errors import HyperError
from ..sys import tasks
from .agent import Connect, Gone
from .tokens import chain

log = logging.getLogger(__name__)
_STALE = 2  # connections that a backlog of one holds
_PATIENCE = (0.5, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds that each attempt may take
_PATIENCE_FRESH = (30.0,)

S = TypeVar("S")
Open = Callable[[socket.socket, bytes, bytes, float], Awaitable[S]]  # a stream, its token, the next one's, seconds


async def reopen(
    connect: Connect, gone: Gone, token: bytes, open_: Open[S], second: bytes = b"", *, fresh: bool = False
) -> S | None:
    """What `open_` gives for a guest that an earlier connection left `token`; None when it never answers.

    The connection after it has the token `second`, where that does not follow from `token`, which others know, too.
    It is one for all attempts: the guest may have heard each of them.

    A guest that was writing at the moment when its connection broke leaves
    QEMU's port throttled for good (virtio-console.c, flush_buf); closing
    another connection resets it. So the first attempts are short.

    Where that is `fresh`, launched for this connection, nothing is throttled, and a second connection does harm: QEMU
    tells the guest of the first one's end by another way than data, in the midst of what it is told then.

    A hypervisor that stood still takes up, when it goes on, the connections
    that were given up in the meantime, as many as its backlog holds (two): each
    of them may have moved the guest to the next token.
    """
    tokens = chain(token, _STALE + 3, second)
    candidates = list(zip(tokens, tokens[1:], strict=False))
    for attempt, patience in enumerate(_PATIENCE_FRESH if fresh else _PATIENCE):
        for candidate, following in candidates if attempt > 1 else candidates[:2]:
            try:
                sock = connect()
            except HyperError as error:
                log.debug("reconnecting: %s", error)
                with contextlib.suppress(TimeoutError):  # it stands still, or it is gone
                    await tasks.within(gone(), patience)
                    return None
                continue
            try:
                return await open_(sock, candidate, following, patience)
            except HyperError as error:
                log.debug("reconnecting: %s", error)
    return None
