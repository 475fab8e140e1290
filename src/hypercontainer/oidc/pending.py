# SPDX-License-Identifier: Apache-2.0
"""Log-ins that have begun: of a browser, by a redirect; of a device, by a code that somebody enters elsewhere.

They are in memory only; each is good once, and for some minutes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import secrets
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import Conflict, NotFound, PermissionDenied, TooManyRequests, Unauthorized
from ..sys import clock
from .provider import DeviceCode, Provider, Refused

LIFE = 600.0  # seconds that a browser's log-in may take
_MOST = 1000  # browsers at a time: the oldest makes room
DEVICES, DEVICES_OF_PEER = 1000, 20  # at a time: one of which nobody asks any more makes room, else a device is refused
_LEFT = 60.0  # seconds after which one that nobody has asked for may make room
_DEVICE_LIFE = 1800.0  # seconds, whatever the provider says
_SLOWER = 5.0  # seconds, RFC 8628, 3.5


@dataclass
class _Browser:
    cookie: str  # SHA-256 of what its browser has
    redirect: str
    begun: float
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))  # RFC 7636, 4.1

    @property
    def challenge(self) -> str:
        return base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()


class Browsers:
    """Log-ins by authorization code, with PKCE, state and nonce."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._begun: OrderedDict[str, _Browser] = OrderedDict()  # by state

    async def begin(self, redirect: str) -> tuple[str, str]:
        """Where the browser goes, and the cookie that shows later that it is the same one.

        :raise Unavailable: the provider does not answer.
        """
        state, cookie = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        made = _Browser(_digest(cookie), redirect, clock.seconds())
        address = await self._provider.address(redirect, state, made.nonce, made.challenge)
        while len(self._begun) >= _MOST:
            self._begun.popitem(last=False)
        self._begun[state] = made
        return address, cookie

    async def finish(self, query: Mapping[str, str], cookie: str) -> dict[str, Any]:
        """Claims of who came back with this query.

        :raise Unauthorized: it was not begun here, by this browser; or the provider refuses. :raise Unavailable: the
        provider does not answer.
        """
        found = self._begun.pop(query.get("state", ""), None)
        again = "begin the log-in again"
        if found is None or clock.seconds() - found.begun > LIFE:
            raise Unauthorized("the log-in was not begun here, or too long ago", hint=again)
        if not hmac.compare_digest(found.cookie, _digest(cookie)):
            raise Unauthorized("the log-in was begun by another browser", hint=again)
        if not await self._provider.names_itself(query.get("iss")):
            raise Unauthorized("the answer is another identity provider's", hint=again)
        if error := query.get("error"):
            said = query.get("error_description") or error
            raise Unauthorized(f"the identity provider says: {said[:300]}", hint=again)
        if not (code := query.get("code")):
            raise Unauthorized("the identity provider gave no code", hint=again)
        return await self._provider.redeem(code, found.redirect, found.verifier, found.nonce)


@dataclass
class _Device:
    code: DeviceCode
    ends: float
    next: float  # when the provider may be asked again
    interval: float
    peer: str  # who has begun it
    asked: float  # when somebody asked last
    asking: bool = False

    @property
    def left(self) -> float:
        """From when on nobody seems to wait for it."""
        return self.asked + max(_LEFT, 2 * self.interval)


class Devices:
    """Log-ins by RFC 8628: the command line's. Everybody may begin one."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._begun: dict[str, _Device] = {}  # by the digest of its handle
        self._beginning: Counter[str] = Counter()  # of each peer, those for which the provider is being asked

    async def begin(self, peer: str) -> tuple[str, DeviceCode]:
        """A handle, which is a secret, and what to show.

        :raise TooManyRequests: too many have begun and not ended. :raise Unavailable: the provider does not answer.
        :raise Unsupported: it has none.
        """
        self._make_room(peer)
        handle = secrets.token_urlsafe(32)
        self._beginning[peer] += 1
        try:
            code = await self._provider.device()
        finally:
            self._beginning -= Counter((peer,))
        now = clock.seconds()
        interval = min(max(code.interval, 1.0), 60.0)
        ends = now + min(code.expires_in, _DEVICE_LIFE)
        self._begun[_digest(handle)] = _Device(code, ends, now + interval, interval, peer, now)
        return handle, code

    def _make_room(self, peer: str) -> None:
        """For one more. :raise TooManyRequests: there is none."""
        self._forget()
        mine = {key: device for key, device in self._begun.items() if device.peer == peer}
        if len(mine) + self._beginning[peer] >= DEVICES_OF_PEER:
            self._forget_one(mine, "too many log-ins have begun at your address and not ended")
        if len(self._begun) + self._beginning.total() >= DEVICES:
            self._forget_one(self._begun, "too many log-ins have begun and not ended")

    def _forget_one(self, of: dict[str, _Device], why: str) -> None:
        """That for which nobody has asked for longest. :raise TooManyRequests: it is not long ago."""
        key = min(of, key=lambda each: of[each].left, default="")
        wait = of[key].left - clock.seconds() if key else _SLOWER
        if wait > 0:
            seconds = math.ceil(wait)
            raise TooManyRequests(why, retry_after=seconds, hint=f"end one, or try again in {seconds} s")
        del self._begun[key]

    async def ask(self, handle: str) -> tuple[dict[str, Any] | None, float]:
        """Claims; None while nobody has entered the code, and seconds until one may ask again.

        :raise NotFound: none such has begun, or it is over. :raise PermissionDenied: it was refused there, and is over.
        :raise Conflict: it is being asked. :raise Unavailable: the provider does not answer.
        """
        self._forget()
        found = self._begun.get(_digest(handle))
        if found is None:
            raise NotFound("there is no such log-in, or it took too long", hint="begin again")
        found.asked = clock.seconds()
        if found.asking:
            raise Conflict("the log-in is being asked for by another", hint="ask one after another")
        if (wait := found.next - clock.seconds()) > 0:
            return None, wait
        found.asking = True
        try:
            return await self._provider.redeem_device(found.code.device_code), 0.0
        except Refused as error:
            if error.reason not in ("authorization_pending", "slow_down"):
                self.end(handle)
                raise PermissionDenied(error.message, hint=error.hint) from None
            found.interval += _SLOWER if error.reason == "slow_down" else 0.0
            return None, found.interval
        finally:
            found.asking, found.next = False, clock.seconds() + found.interval

    def end(self, handle: str) -> None:
        """It is good no more. Idempotent."""
        self._begun.pop(_digest(handle), None)

    def _forget(self) -> None:
        for key in [key for key, device in self._begun.items() if device.ends <= clock.seconds()]:
            del self._begun[key]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
