# SPDX-License-Identifier: Apache-2.0
"""Logging in and out, and the choice of a project."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from ..engine.engine import Engine
from ..engine.principal import asked_by
from ..errors import Unauthorized
from ..serving.auditing import ticket
from ..serving.identity import Identity
from . import render
from .call import NONE, form_of
from .sessions import LIFE, Sessions, name_of_cookie, session_of

_WAIT = 1.0  # seconds that a wrong token waits for its answer: nobody tries many


def add_routes(app: web.Application, engine: Engine, identity: Identity, sessions: Sessions) -> None:
    """Of pages that are there for everybody, and of the first one."""
    made = _Doors(engine, identity, sessions)
    app.router.add_get("/", made.projects)
    app.router.add_get("/login", made.show)
    app.router.add_post("/login", made.enter)
    app.router.add_post("/logout", made.leave)


class _Doors:
    def __init__(self, engine: Engine, identity: Identity, sessions: Sessions) -> None:
        self._engine, self._identity, self._sessions = engine, identity, sessions

    async def show(self, request: web.Request) -> web.Response:
        return render.page("login.html", wrong="")

    async def enter(self, request: web.Request) -> web.Response:
        token = (await form_of(request)).get("token", "").strip()
        try:
            ticket().who = self._identity.of_token(token).name
        except Unauthorized as error:
            await asyncio.sleep(_WAIT)
            return render.page("login.html", status=401, wrong=f"{error.message}.")
        response = web.Response(status=303, headers={"Location": "/"})
        response.set_cookie(
            name_of_cookie(secure=request.secure), self._sessions.begin(token), httponly=True, secure=request.secure,
            samesite="Strict", path="/", max_age=int(LIFE),
        )  # fmt: skip
        return response

    async def leave(self, request: web.Request) -> web.Response:
        session = session_of(request, self._sessions)
        session.check_form((await form_of(request)).get("csrf", ""))
        name = name_of_cookie(secure=request.secure)
        self._sessions.end(request.cookies.get(name, ""))
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
