# SPDX-License-Identifier: Apache-2.0
"""Errors as statuses of HTTP, where all front ends have the same."""

from __future__ import annotations

from collections.abc import Mapping

from .. import errors

STATUS: dict[type[errors.HyperError], int] = {
    errors.InvalidArgument: 400,
    errors.Unauthorized: 401,
    errors.PermissionDenied: 403,
    errors.QuotaExceeded: 403,
    errors.TooManyRequests: 429,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.InvalidState: 409,
    errors.GuestError: 500,
    errors.InternalError: 500,
    errors.Unsupported: 501,
    errors.Unavailable: 503,
    errors.DeadlineExceeded: 504,
}


def status_of(error: Exception, statuses: Mapping[type[errors.HyperError], int] = STATUS) -> int:
    """500 for what nobody has foreseen."""
    return next((status for kind, status in statuses.items() if isinstance(error, kind)), 500)


def headers_of(error: Exception) -> dict[str, str]:
    """What an answer's head says of it (RFC 9110, 10.2.3)."""
    return {"Retry-After": str(error.retry_after)} if isinstance(error, errors.TooManyRequests) else {}
