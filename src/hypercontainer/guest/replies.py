# SPDX-License-Identifier: Apache-2.0
"""Small parts of requests and replies that no message has for itself."""

from __future__ import annotations

import contextlib
import os

from ..errors import GuestError, StartFailed
from ..model.identity import Identity
from ..protocol.constants import GuestCode, Tag
from ..protocol.wire import Attrs, ProtocolError, bounded, decode_attrs, number, required, text
from ..sys import clock, spans

_ID_MAX = 2**32 - 1


def record_spans(body: bytes) -> None:
    """Record where the guest's time went, by its own clock, which a request may have set late by as long as that took.

    A malformed span is none: whatever it is told with stands for itself.
    """
    if not spans.wanted():
        return
    with contextlib.suppress(ProtocolError):
        for tag, value in decode_attrs(body):
            if tag == Tag.SPAN:
                found = dict(decode_attrs(value))
                begin, end = number(required(found, Tag.BEGIN)), number(required(found, Tag.END))
                spans.add(spans.GUEST, text(required(found, Tag.NAME)), begin, end)


def pid_of(body: bytes) -> int:
    """A started process's number inside the pod, out of PROCESS_START's reply."""
    return bounded(dict(decode_attrs(body)).get(Tag.PID, bytes(8)), _ID_MAX)


def identity_of(body: bytes) -> Identity | None:
    """Whose process it began as, out of PROCESS_START's reply; None: an older guest does not say."""
    attrs = list(decode_attrs(body))
    found = dict(attrs)
    if Tag.UID not in found:
        return None
    groups = [text(value) for tag, value in attrs if tag == Tag.GROUP]
    if not all(g.isdecimal() and int(g) <= _ID_MAX for g in groups):
        raise ProtocolError("a group that is no number")
    uid, gid = (bounded(required(found, tag), _ID_MAX) for tag in (Tag.UID, Tag.GID))
    return Identity(uid=uid, gid=gid, groups=[int(g) for g in groups])


def seed() -> Attrs:
    """What makes a guest unlike any other, and its clock right."""
    return [(Tag.ENTROPY, os.urandom(64)), (Tag.CLOCK, clock.now_ns())]


def error_of(body: bytes) -> GuestError | StartFailed:
    """An ERROR frame's body as the error that it means."""
    attrs = dict(decode_attrs(body))
    code, errno = number(required(attrs, Tag.CODE)), number(required(attrs, Tag.ERRNO))
    message = text(required(attrs, Tag.MESSAGE))
    if code == GuestCode.EXEC:
        return StartFailed(message, exit_status=bounded(required(attrs, Tag.EXIT_STATUS), 255) or 126)
    return GuestError(message, guest_code=code, errno=errno)
