# SPDX-License-Identifier: Apache-2.0
"""What requests of E2B's REST API carry."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from ...errors import InvalidArgument


async def read_body(request: web.Request) -> dict[str, Any]:
    """{} where there is none. :raise InvalidArgument: it is no JSON object."""
    try:
        found = await request.json() if request.can_read_body else {}
    except (ValueError, LookupError, RecursionError):  # no JSON, or no text
        found = None
    if not isinstance(found, dict):
        raise InvalidArgument("the body is no JSON object")
    return found
