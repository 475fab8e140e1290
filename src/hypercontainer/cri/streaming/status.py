# SPDX-License-Identifier: Apache-2.0
"""How a command ended, as Kubernetes' clients read it: a v1 Status.

https://github.com/kubernetes/apimachinery/blob/master/pkg/apis/meta/v1/types.go, `Status`; `NonZeroExitCode` and the
cause `ExitCode` are those of https://github.com/kubernetes/apimachinery/blob/master/pkg/util/remotecommand/constants.go
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...engine.attach.peer import End
from ..faults import message_of
from .tickets import CommandTicket


def status_of(end: End, ticket: CommandTicket) -> dict[str, Any]:
    """Of a session. An attached client learns elsewhere how the container ended: attaching has succeeded."""
    if end.error:
        return failure(message_of(end.error))
    if not (end.exit_code and ticket.command):
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with exit code {end.exit_code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(end.exit_code)}]},
    }


def failure(message: str, code: int = 500) -> dict[str, Any]:
    """What is wrong, with a status of HTTP."""
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": "InternalError" if code == 500 else "BadRequest", "code": code,
    }  # fmt: skip


def encoded(end: End, ticket: CommandTicket, *, as_json: bool) -> bytes:
    """For the channel of errors: protocols before v4 have words there, and nothing where all is well."""
    status = status_of(end, ticket)
    if as_json:
        return msgspec.json.encode(status)
    return str(status.get("message", "")).encode()
