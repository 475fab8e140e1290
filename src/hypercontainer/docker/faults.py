# SPDX-License-Identifier: Apache-2.0
"""Errors as Docker's clients expect them: a status, and a message."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from aiohttp import web

from .. import errors
from ..serving import statuses
from ..serving.auditing import ticket
from ..serving.statuses import headers_of, status_of

log = logging.getLogger(__name__)

# As from Docker 20.10 on, where a program is not there or may not be executed; and it has no status for a full disk.
STATUS = statuses.STATUS | {errors.StartFailed: 400, errors.NoSpace: 500}


def message_of(error: Exception) -> str:
    """What went wrong and what to do, in the one sentence that Docker's clients show."""
    if not isinstance(error, errors.HyperError):
        return f"internal error: {error!r}; see hyperd's log"
    message = _as_go(error.message) if isinstance(error, errors.StartFailed) else error.message
    return f"{message} ({error.hint})" if error.hint else message


def _as_go(message: str) -> str:
    """Go writes errors of the system in small letters; `docker run` takes its exit status, 126 or 127, from them."""
    head, colon, error = message.rpartition(": ")
    return head + colon + error[:1].lower() + error[1:]


def fault(status: int, message: str) -> web.Response:
    return web.Response(body=msgspec.json.encode({"message": message}), status=status, content_type="application/json")


def response_to(error: Exception) -> web.Response:
    """The answer that tells of an error; what is none of ours is logged with its traceback."""
    if isinstance(error, errors.HyperError):
        ticket().code = error.code
        made = fault(status_of(error, STATUS), message_of(error))
        made.headers.update(headers_of(error))
        return made
    ticket().code = "internal"
    log.error("request %s failed", ticket().id, exc_info=error)
    return fault(500, message_of(error))


@web.middleware
async def errors_to_messages(request: web.Request, handler: Any) -> web.StreamResponse:
    """Whatever an operation raises becomes an answer."""
    try:
        response: web.StreamResponse = await handler(request)
        return response
    except web.HTTPException as error:
        if error.status == 404:
            return fault(404, "page not found")
        return fault(error.status, f"{request.method} {request.path}: {error.reason}")
    except Exception as error:
        return response_to(error)
