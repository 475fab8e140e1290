# SPDX-License-Identifier: Apache-2.0
"""A line of the audit log."""

from __future__ import annotations

from typing import Literal

from .base import Model


class AuditEntry(Model, frozen=True, kw_only=True, omit_defaults=True):
    """A request, when its answer begins to stream (`begin`), and when it is over (`end`)."""

    time: str  # RFC 3339, nanoseconds
    request: str  # its id, as in the answer's header Hyper-Request-Id
    phase: Literal["begin", "end"]
    principal: str = ""  # nobody that is known
    user: str = ""  # name of the one whose token or certificate it is
    project: str = ""  # id of the one that was meant
    peer: str = ""  # address, where it came by TCP
    method: str
    path: str
    query: str = ""
    status: int = 0  # of HTTP; 0: the caller went away before there was an answer
    code: str = ""  # of the error
    milliseconds: float = 0.0
