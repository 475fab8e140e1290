# SPDX-License-Identifier: Apache-2.0
"""What opens a connection with a guest: a token each, so that what an earlier one left unsent opens nothing."""

from __future__ import annotations

import hashlib
import os

from ..protocol.constants import FIRST_TOKEN, TOKEN_SIZE


def next_token(token: bytes) -> bytes:
    """The token of the connection after one that `token` opened.

    The first is random: containers know HP_FIRST_TOKEN. Each further one
    follows from its predecessor, so that a host that does not know whether
    its last HELLO arrived has just two tokens to try.
    """
    return os.urandom(TOKEN_SIZE) if token == FIRST_TOKEN else hashlib.sha256(token).digest()[:TOKEN_SIZE]


def chain(token: bytes, length: int, second: bytes = b"") -> list[bytes]:
    """`token` and those that follow it, so many in all; the one after it is `second` where that is given."""
    found = [token]
    while len(found) < length:
        found.append(second if second and len(found) == 1 else next_token(found[-1]))
    return found
