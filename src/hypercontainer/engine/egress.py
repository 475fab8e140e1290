# SPDX-License-Identifier: Apache-2.0
"""What pods with an egress policy tried and may not, as events: so many, however often a pod tries."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ..model.status import Pod
from ..network.egress.refused import Refused
from .events import Events

_AT_ONCE = 20  # events of one pod
_PER_SECOND = 1.0
_PODS = 1024  # that are remembered


@dataclass
class _Account:
    """Of one pod."""

    left: float = _AT_ONCE
    since: float = 0.0  # the loop's time of `left`
    untold: int = 0


class Refusals:
    """Publishes them."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._accounts: dict[str, _Account] = {}

    def __call__(self, pod: Pod, refused: Refused) -> None:
        """One more; those that are too many are counted in the next event of the pod."""
        now = asyncio.get_running_loop().time()
        account = self._accounts.pop(pod.id, None) or _Account(since=now)
        self._accounts[pod.id] = account  # the last to be forgotten
        if len(self._accounts) > _PODS:
            del self._accounts[next(iter(self._accounts))]
        account.left = min(_AT_ONCE, account.left + (now - account.since) * _PER_SECOND)
        account.since = now
        if account.left < 1:
            account.untold += 1
            return
        account.left -= 1
        untold, account.untold = account.untold, 0
        self._events.publish(
            "container" if pod.implicit else "pod", "egress_refused", pod.id, of=pod.labels, name=pod.name,
            host=_printable(refused.host), port=str(refused.port), reason=_printable(str(refused)),
            **({"untold": str(untold)} if untold else {}),
        )  # fmt: skip


def _printable(text: str) -> str:
    """What a pod sent: people read it in terminals."""
    return "".join(c if c.isprintable() else "?" for c in text)
