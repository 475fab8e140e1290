# SPDX-License-Identifier: Apache-2.0
"""Log-ins by an identity provider, for the front ends: the provider is asked, and hyperd's own token comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..engine.tenancy.logins import Logins, LoginSettings
from ..model.logins import DeviceLogin, LoginAnswer
from ..model.tokens import NewToken
from ..oidc.pending import Browsers, Devices
from ..oidc.provider import Provider


@dataclass(frozen=True)
class LoginsConfiguration:
    """The table `oidc` of the configuration."""

    provider: Provider
    settings: LoginSettings
    title: str = ""  # what people call the provider
    console: str = ""  # the console's address as browsers have it; "": as they say


class LoggingIn:
    """By one provider."""

    def __init__(self, configuration: LoginsConfiguration, logins: Logins) -> None:
        self._settings, self._logins = configuration.settings, logins
        self.title, self.console = configuration.title, configuration.console
        self.browsers, self._devices = Browsers(configuration.provider), Devices(configuration.provider)

    async def finish(self, query: Mapping[str, str], cookie: str) -> NewToken:
        """A browser has come back. Raises what `Browsers.finish` and `Logins.enter` do."""
        return self._logins.enter(await self.browsers.finish(query, cookie), self._settings)

    async def begin_device(self, peer: str) -> DeviceLogin:
        """By who is at the other end of the connection. Raises what `Devices.begin` does."""
        handle, code = await self._devices.begin(peer)
        return DeviceLogin(
            handle=handle, user_code=code.user_code, verification_uri=code.verification_uri,
            verification_uri_complete=code.verification_uri_complete, expires_in=code.expires_in,
            interval=code.interval,
        )  # fmt: skip

    async def ask_device(self, handle: str) -> LoginAnswer:
        """Raises what `Devices.ask` and `Logins.enter` do: it is over then, and it is when there is a token."""
        claims, wait = await self._devices.ask(handle)
        if claims is None:
            return LoginAnswer(wait=wait)
        self._devices.end(handle)
        made = self._logins.enter(claims, self._settings)
        return LoginAnswer(secret=made.secret, expires_at=made.token.expires_at, user=made.token.user)
