# SPDX-License-Identifier: Apache-2.0
"""User numbers that nothing else on a host has: for processes that serve one machine each."""

from __future__ import annotations

import secrets

_COUNT = 1 << 24
# Those of the first range are kept from the host's loopback (network/fence.py).
FENCED = range(0x70000000, 0x70000000 + _COUNT)
OPEN = range(FENCED.stop, FENCED.stop + _COUNT)


def pick(*, fenced: bool = True) -> int:
    """One of them, which probably nobody has."""
    return secrets.choice(FENCED if fenced else OPEN)
