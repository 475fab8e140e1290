# SPDX-License-Identifier: Apache-2.0
"""Tokens of connections: what follows what, and what is tried on a guest that does not answer at once."""

from __future__ import annotations

import socket

from hypercontainer.errors import DeadlineExceeded
from hypercontainer.guest.reopen import reopen
from hypercontainer.guest.tokens import chain, next_token

TOKEN, SECOND = b"t" * 16, b"s" * 16


async def test_a_guest_that_heard_an_attempt_late_is_known_by_the_next() -> None:
    """What follows a token that others know too is random, and is one for all attempts."""
    expected = [TOKEN]
    tried: list[tuple[bytes, bytes]] = []

    async def attempt(sock: socket.socket, token: bytes, following: bytes, timeout: float) -> bytes:
        tried.append((token, following))
        sock.close()
        known = token == expected[0]
        if known:
            expected[0] = following
        if not known or len(tried) == 1:  # the first is heard, after nobody waits for it any more
            raise DeadlineExceeded("no answer")
        return token

    async def never() -> None:
        raise AssertionError("it was there")

    assert await reopen(socket.socket, never, TOKEN, attempt, SECOND) == SECOND
    assert tried == [(TOKEN, SECOND), (SECOND, next_token(SECOND))]


def test_what_follows() -> None:
    assert chain(TOKEN, 3) == [TOKEN, next_token(TOKEN), next_token(next_token(TOKEN))]
    assert chain(TOKEN, 3, SECOND) == [TOKEN, SECOND, next_token(SECOND)]
