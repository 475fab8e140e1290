# SPDX-License-Identifier: Apache-2.0
"""Log-ins of devices, which everybody may begin: how many there are at a time, and which give way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hypercontainer.errors import NotFound, PermissionDenied, TooManyRequests, Unavailable
from hypercontainer.oidc import pending
from hypercontainer.oidc.pending import DEVICES, DEVICES_OF_PEER, Devices
from hypercontainer.oidc.provider import DeviceCode, Provider, ProviderSettings, Refused
from tests.engine.clock import VirtualLoop

PENDING = Refused("not yet", "authorization_pending")


class Fake(Provider):
    """It answers when it is let, and says what it is told to."""

    def __init__(self) -> None:
        super().__init__(ProviderSettings("https://id.example", "hyper"))
        self.open = asyncio.Event()
        self.open.set()
        self.says: Exception = PENDING
        self.made = 0

    async def device(self) -> DeviceCode:
        await self.open.wait()
        if self.says is not PENDING:
            raise self.says
        self.made += 1
        return DeviceCode(f"device-{self.made}", f"user-{self.made}", "https://id.example/enter", 900.0)

    async def redeem_device(self, code: str) -> dict[str, Any]:
        raise self.says


def played(act: Callable[[Devices, Fake], Coroutine[Any, Any, None]]) -> None:
    async def scene() -> None:
        provider = Fake()
        await act(Devices(provider), provider)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scene())


def test_one_address_has_some_however_many_it_begins_at_once() -> None:
    async def act(devices: Devices, provider: Fake) -> None:
        provider.open.clear()
        crowd = [asyncio.ensure_future(devices.begin("192.0.2.1")) for _ in range(DEVICES_OF_PEER + 10)]
        other = asyncio.ensure_future(devices.begin("192.0.2.2"))
        await asyncio.sleep(1)
        provider.open.set()
        answers = await asyncio.gather(*crowd, return_exceptions=True)
        refused = [a for a in answers if isinstance(a, TooManyRequests)]
        assert len(refused) == 10 and provider.made == DEVICES_OF_PEER + 1 and (await other)[0]
        assert all("at your address" in e.message and e.retry_after >= 1 for e in refused)

    played(act)


def test_all_have_no_more_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "DEVICES", 30)

    async def act(devices: Devices, provider: Fake) -> None:
        provider.open.clear()
        crowd = [asyncio.ensure_future(devices.begin(f"192.0.2.{n}")) for n in range(40)]
        await asyncio.sleep(1)
        provider.open.set()
        answers = await asyncio.gather(*crowd, return_exceptions=True)
        assert provider.made == 30 and sum(isinstance(a, TooManyRequests) for a in answers) == 10

    played(act)
    assert DEVICES > DEVICES_OF_PEER


def test_one_that_nobody_waits_for_makes_room_and_others_stay() -> None:
    async def act(devices: Devices, provider: Fake) -> None:
        begun = [(await devices.begin("192.0.2.1"))[0] for _ in range(DEVICES_OF_PEER)]
        for _ in range(12):  # somebody waits for all but the second
            await asyncio.sleep(6)
            for handle in (begun[0], *begun[2:]):
                assert (await devices.ask(handle))[0] is None
        await devices.begin("192.0.2.1")
        with pytest.raises(NotFound):
            await devices.ask(begun[1])
        assert (await devices.ask(begun[0]))[0] is None
        with pytest.raises(TooManyRequests) as refused:
            await devices.begin("192.0.2.1")
        assert 50 < refused.value.retry_after <= 60

    played(act)


@pytest.mark.parametrize("ends", ["refused", "fails", "given up"])
def test_one_that_ends_makes_room(ends: str) -> None:
    async def act(devices: Devices, provider: Fake) -> None:
        begun = [(await devices.begin("192.0.2.1"))[0] for _ in range(DEVICES_OF_PEER - 1)]
        if ends == "refused":
            await devices.begin("192.0.2.1")
            await asyncio.sleep(6)
            provider.says = Refused("no", "access_denied")
            with pytest.raises(PermissionDenied):
                await devices.ask(begun[0])
        elif ends == "fails":
            provider.says = Unavailable("no answer")
            with pytest.raises(Unavailable):
                await devices.begin("192.0.2.1")
        else:
            provider.open.clear()
            waiting = asyncio.ensure_future(devices.begin("192.0.2.1"))
            await asyncio.sleep(1)
            waiting.cancel()
            await asyncio.wait([waiting])
            provider.open.set()
        provider.says = PENDING
        assert (await devices.begin("192.0.2.1"))[0]

    played(act)
