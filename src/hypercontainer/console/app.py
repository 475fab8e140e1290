# SPDX-License-Identifier: Apache-2.0
"""The console's application: who is logged in, rules for browsers, and pages of what goes wrong."""

from __future__ import annotations

import logging
from typing import Any

from aiohttp import web

from ..engine.engine import Engine
from ..engine.principal import asked_by
from ..errors import HyperError, Unauthorized
from ..serving.application import application
from ..serving.auditing import ticket
from ..serving.identity import Identity
from ..serving.statuses import headers_of, status_of
from . import (
    administration,
    cluster,
    container,
    containers,
    files,
    images,
    login,
    people,
    render,
    streams,
    things,
    usage,
    workloads,
)
from .call import NONE, Call, Page, check_origin, form_of
from .sessions import Sessions, session_of

log = logging.getLogger(__name__)
_MODULES = (containers, container, files, streams, images, things, usage, cluster, people, administration, workloads)
PAGES = [page for module in _MODULES for page in module.pages.all]
# Nothing of another host, nothing in line, in no frame (https://www.w3.org/TR/CSP3/).
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
# xterm.js writes a style sheet for its colours and its font into the page.
TERMINAL_CSP = CSP.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
_HEADERS = {
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}  # fmt: skip


def build(engine: Engine, identity: Identity) -> web.Application:
    """All pages, and what they need."""
    app = application(engine, identity, _errors_to_pages, knows_callers=False)
    app.on_response_prepare.append(protect)
    sessions = Sessions()
    for page in PAGES:
        app.router.add_route(page.method, page.path, _bind(page, engine, identity, sessions))
    login.add_routes(app, engine, identity, sessions)
    app.router.add_static("/static", render.STATIC, append_version=False)
    return app


def _bind(page: Page, engine: Engine, identity: Identity, sessions: Sessions) -> Any:
    async def answer(request: web.Request) -> web.StreamResponse:
        session = session_of(request, sessions)
        project = request.match_info["project"]
        who = identity.of_token(session.token, "" if project == NONE else project)
        identity.note(who)
        check_origin(request)
        engine.registry.quotas.admit(who)
        form = await form_of(request) if request.method == "POST" and page.takes_form else {}
        with asked_by(who), identity.held(request, who), session.held(request.transport):
            return await page.handler(Call(engine, request, session, form))

    return answer


async def protect(request: web.Request, response: web.StreamResponse) -> None:
    """When an answer's head is about to be sent."""
    response.headers.update(_HEADERS)
    response.headers["Content-Security-Policy"] = TERMINAL_CSP if request.path.endswith("/terminal") else CSP
    if request.secure:
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    if not request.path.startswith("/static/"):
        response.headers.setdefault("Cache-Control", "no-store")


@web.middleware
async def _errors_to_pages(request: web.Request, handler: Any) -> web.StreamResponse:
    """Whatever a page raises becomes one that says what went wrong and what to do."""
    try:
        response: web.StreamResponse = await handler(request)
        return response
    except Unauthorized:
        if "HX-Request" in request.headers:
            return web.Response(status=200, headers={"HX-Redirect": "/login"})
        return web.Response(status=303, headers={"Location": "/login"})
    except HyperError as error:
        ticket().code = error.code
        made = _told(request, status_of(error), error.message, error.hint or "")
        made.headers.update(headers_of(error))
        return made
    except web.HTTPException as error:
        return _told(request, error.status, error.reason, "")
    except Exception as error:
        ticket().code = "internal"
        log.error("request %s failed", ticket().id, exc_info=error)
        return _told(request, 500, "internal error", f"hyperd's log has it under {ticket().id}")


def _told(request: web.Request, status: int, message: str, hint: str) -> web.Response:
    template = "error_part.html" if "HX-Request" in request.headers else "error.html"
    return render.page(template, status=status, code=status, message=message, hint=hint)
