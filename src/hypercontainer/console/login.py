# SPDX-License-Identifier: Apache-2.0
"""Logging in and out, and the choice of a project."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from aiohttp import web

from ..engine.engine import Engine
from ..engine.principal import asked_by
from ..errors import HyperError, InvalidArgument, NotFound, Unauthorized
from ..oidc.pending import LIFE as PENDING
from ..serving.auditing import ticket
from ..serving.identity import Identity
from ..serving.logging_in import LoggingIn
from ..serving.statuses import status_of
from . import render
from .call import NONE, form_of
from .sessions import LIFE, Sessions, name_of_cookie, session_of

_BACK = "/login/back"  # where the identity provider sends a browser
_ON_THE_WAY = "hyper_login"  # the cookie of a browser that is there
_WAIT = 1.0  # seconds that a wrong token waits for its answer: nobody tries many


def add_routes(app: web.Application, engine: Engine, identity: Identity, sessions: Sessions) -> None:
    """Of pages that are there for everybody, and of the first one."""
    made = _Doors(engine, identity, sessions)
    app.router.add_get("/", made.projects)
    app.router.add_get("/login", made.show)
    app.router.add_post("/login", made.enter)
    app.router.add_post("/logout", made.leave)
    app.router.add_get("/login/elsewhere", made.leave_for_provider)
    app.router.add_get(_BACK, made.come_back)


class _Doors:
    def __init__(self, engine: Engine, identity: Identity, sessions: Sessions) -> None:
        self._engine, self._identity, self._sessions = engine, identity, sessions

    async def show(self, request: web.Request) -> web.Response:
        return self._page()

    def _page(self, status: int = 200, wrong: str = "") -> web.Response:
        title = self._identity.provider.title if self._identity.provider else ""
        return render.page("login.html", status=status, wrong=wrong, elsewhere=title)

    async def enter(self, request: web.Request) -> web.Response:
        token = (await form_of(request)).get("token", "").strip()
        try:
            ticket().who = self._identity.of_token(token).name
        except Unauthorized as error:
            await asyncio.sleep(_WAIT)
            return self._page(401, f"{error.message}.")
        response = web.Response(status=303, headers={"Location": "/"})
        self._begin(request, response, token)
        return response

    def _begin(self, request: web.Request, response: web.Response, token: str) -> None:
        response.set_cookie(
            name_of_cookie(request), self._sessions.begin(token), httponly=True, secure=request.secure,
            samesite="Strict", path="/", max_age=int(LIFE),
        )  # fmt: skip

    async def leave_for_provider(self, request: web.Request) -> web.Response:
        """The browser is sent to the identity provider, with a cookie by which it is known when it comes back."""
        try:
            provider = self._provider()
            address, cookie = await provider.browsers.begin((provider.console or _origin(request)) + _BACK)
        except HyperError as error:
            return self._refused(error)
        response = web.Response(status=303, headers={"Location": address})
        # Lax: it comes back by a link of another site.
        response.set_cookie(
            name_of_cookie(request, _ON_THE_WAY), cookie, httponly=True, secure=request.secure, samesite="Lax",
            path="/", max_age=int(PENDING),
        )  # fmt: skip
        return response

    async def come_back(self, request: web.Request) -> web.Response:
        """From the identity provider. A page, and no redirect, goes on: a `Strict` cookie would not be sent along."""
        name = name_of_cookie(request, _ON_THE_WAY)
        try:
            made = await self._provider().finish(request.query, request.cookies.get(name, ""))
        except HyperError as error:
            response = self._refused(error)
        else:
            ticket().who, ticket().user = f"token:{made.token.id}", made.token.user
            response = render.page("entered.html", who=made.token.user)
            self._begin(request, response, made.secret)
        response.del_cookie(name, path="/")
        return response

    def _refused(self, error: HyperError) -> web.Response:
        ticket().code = error.code
        return self._page(status_of(error), f"{error.message}: {error.hint}." if error.hint else f"{error.message}.")

    def _provider(self) -> LoggingIn:
        """:raise NotFound: one logs in by tokens only."""
        if self._identity.provider is None:
            raise NotFound("this hyperd has no identity provider")
        return self._identity.provider

    async def leave(self, request: web.Request) -> web.Response:
        session = session_of(request, self._sessions)
        session.check_form((await form_of(request)).get("csrf", ""))
        name = name_of_cookie(request)
        self._sessions.end(request.cookies.get(name, ""))
        with contextlib.suppress(InvalidArgument, Unauthorized):  # it is a token, which stays, or is gone already
            self._engine.tokens.end_login(self._identity.of_token(session.token).name)
        response = web.Response(status=303, headers={"Location": "/login"})
        response.del_cookie(name, path="/")
        return response

    async def projects(self, request: web.Request) -> web.Response:
        """Those that one sees; to the only one at once."""
        session = session_of(request, self._sessions)
        who = self._identity.of_token(session.token)
        with asked_by(who):
            found: list[Any] = self._engine.tenancy.projects.all()
        administers = "admin" in who.scopes
        plain = not isinstance(who.tenant, str)  # a token of no project
        if not administers and (len(found) == 1 or (plain and not found)):
            return web.Response(status=303, headers={"Location": f"/p/{found[0].id if found else NONE}/containers"})
        outside = NONE if plain else ""
        return render.page("projects.html", projects=found, outside=outside, csrf=session.csrf, who=who.name)


def _origin(request: web.Request) -> str:
    """Of the console, as the browser says; the provider sends nobody to where it was not told before."""
    return f"{'https' if request.secure else 'http'}://{request.host}"
