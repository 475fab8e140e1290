# SPDX-License-Identifier: Apache-2.0
"""Logging in and out over REST: who logs in is nobody before."""

from __future__ import annotations

from ..engine.principal import current
from ..errors import Unsupported
from ..model.logins import DeviceLogin, DeviceQuestion, LoginAnswer
from ..serving.identity import IDENTITY
from ..serving.logging_in import LoggingIn
from ..sys.peer import peer_name
from .router import Context, Routes

routes = Routes()


def _logging_in(c: Context) -> LoggingIn:
    """:raise Unsupported: there is no identity provider."""
    if found := c.request.app[IDENTITY].provider:
        return found
    raise Unsupported("this hyperd has no identity provider", hint="configure `oidc`, or use a token")


@routes.post("/login/device", status=201, everybody=True)
async def begin_device(c: Context) -> DeviceLogin:
    """Begin a log-in by a code that is entered at the identity provider."""
    transport = c.request.transport
    sock = transport.get_extra_info("socket") if transport else None
    return await _logging_in(c).begin_device(peer_name(sock) if sock else "gone")


@routes.post("/login/token", body=DeviceQuestion, everybody=True)
async def ask_device(c: Context) -> LoginAnswer:
    """Ask for the token of a log-in."""
    return await _logging_in(c).ask_device((await c.body(DeviceQuestion)).handle)


@routes.delete("/login", anywhere=True, also=("read", "audit"))
async def log_out(c: Context) -> None:
    """Log out: the token that asks is good no more."""
    c.engine.tokens.end_login(current().name)
