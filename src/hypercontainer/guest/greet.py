# SPDX-License-Identifier: Apache-2.0
"""How the engine comes to an agent: from a byte stream with a guest."""

from __future__ import annotations

import os
import socket

from ..protocol.constants import TOKEN_SIZE
from .agent import Agent, Connect, Gone
from .reopen import reopen
from .session import GuestSession


async def greet(sock: socket.socket, token: bytes, *, timeout: float, inherited: bool = False) -> Agent:
    """The agent of a guest that boots, which `timeout` covers, in seconds; the stream is closed when there is none.

    A token that is `inherited` opens other guests too: clones of one template.

    :raise Unavailable: when the stream ends first.
    :raise DeadlineExceeded: when the guest does not answer in time.
    """
    return await GuestSession.open(sock, token, timeout=timeout, inherited=inherited)


async def find(connect: Connect, gone: Gone, token: bytes) -> Agent | None:
    """The agent of a guest to which an earlier daemon had a connection; None when it never answers."""
    return await reopen(connect, gone, token, GuestSession.continued)


async def wake(connect: Connect, gone: Gone, token: bytes, *, alone: bool = False) -> Agent | None:
    """The agent of a guest that goes on from a saved one, as others may unless it is `alone`; None when it never
    answers.
    """
    second = b"" if alone else os.urandom(TOKEN_SIZE)
    return await reopen(connect, gone, token, GuestSession.continued, second, fresh=True)
