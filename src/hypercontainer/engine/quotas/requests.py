# SPDX-License-Identifier: Apache-2.0
"""How often somebody may ask: so many requests in a minute, which may come at once, and then as they are given back."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ...errors import TooManyRequests
from ...model.quotas import Quota
from ...sys import clock
from .holders import Holder

_MINUTE = 60.0  # seconds
_HOLDERS = 10_000  # that are remembered


@dataclass
class _Account:
    """Of one of them."""

    left: float
    since: float  # the clock's time of `left`


class Requests:
    """Of one daemon."""

    def __init__(self) -> None:
        self._accounts: dict[Holder, _Account] = {}

    def count(self, limits: Iterable[tuple[Holder, Quota]]) -> None:
        """One more of all of these, or of none. :raise TooManyRequests: one of them has asked too often."""
        counting = [self._account(holder, q.requests) for holder, q in limits if q.requests]
        for account in counting:
            account.left -= 1

    def _account(self, holder: Holder, most: int) -> _Account:
        """With room for another. :raise TooManyRequests: there is none."""
        now, rate = clock.seconds(), most / _MINUTE
        account = self._accounts.pop(holder, None) or _Account(most, now)
        self._accounts[holder] = account  # the last to be forgotten
        if len(self._accounts) > _HOLDERS:
            del self._accounts[next(iter(self._accounts))]
        account.left = min(most, account.left + (now - account.since) * rate)
        account.since = now
        if account.left < 1:
            wait = math.ceil((1 - account.left) / rate)
            raise TooManyRequests(f"{holder.name} may ask {most} times in a minute, and has", retry_after=wait,
                                  hint=f"try again in {wait} s")  # fmt: skip
        return account
