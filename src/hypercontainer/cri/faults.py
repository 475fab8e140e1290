# SPDX-License-Identifier: Apache-2.0
"""Errors as gRPC has them: a code, and a sentence."""

from __future__ import annotations

import logging

import grpc

from .. import errors

log = logging.getLogger(__name__)

# The one place where errors become gRPC's codes (https://grpc.io/docs/guides/status-codes/).
CODES: dict[type[errors.HyperError], grpc.StatusCode] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Conflict: grpc.StatusCode.ALREADY_EXISTS,
    errors.InvalidState: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.Unauthorized: grpc.StatusCode.UNAUTHENTICATED,
    errors.Unsupported: grpc.StatusCode.UNIMPLEMENTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.NoSpace: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.QuotaExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.TooManyRequests: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.StartFailed: grpc.StatusCode.INVALID_ARGUMENT,  # the program is not there, or may not be executed
    errors.GuestError: grpc.StatusCode.INTERNAL,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}


def code_of(error: Exception) -> grpc.StatusCode:
    """What a client is told of it."""
    found = (code for kind, code in CODES.items() if isinstance(error, kind))
    return next(found, grpc.StatusCode.INTERNAL)


def message_of(error: Exception) -> str:
    """What went wrong and what to do; what is none of ours is logged with its traceback."""
    if isinstance(error, errors.HyperError):
        return f"{error.message} ({error.hint})" if error.hint else error.message
    log.error("a request by CRI failed", exc_info=error)
    return f"internal error: {error!r}; see hyperd's log"
