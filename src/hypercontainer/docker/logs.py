# SPDX-License-Identifier: Apache-2.0
"""A container's log."""

from __future__ import annotations

import contextlib

from aiohttp import web

from ..engine.attach.peer import frame
from ..engine.attachments import check_readable
from ..engine.log_read import STREAMS, LogRecord
from ..errors import InvalidArgument
from ..model.moments import read_moment, write_moment
from ..model.status import Container
from .hijack import STDERR, STDOUT, stream_type
from .router import Call, Routes

routes = Routes()


@routes.get("/containers/{name}/logs")
async def logs(c: Call) -> web.StreamResponse:
    """The log, its lines as they were written; with `follow` also what is added."""
    container = c.container
    wanted = {number for number, on in ((STDOUT, c.flag("stdout")), (STDERR, c.flag("stderr"))) if on}
    if not wanted:
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    check_readable(container)
    since, until = ("" if m is None else write_moment(m) for m in (moment(c, "since"), moment(c, "until")))
    found = c.engine.logs(container.id, tail=_tail(c), since=since, until=until, follow=c.flag("follow"))
    response = web.StreamResponse(headers={"Content-Type": stream_type(container.spec.tty, c.version)})
    await response.prepare(c.request)
    with contextlib.suppress(ConnectionError):
        async with contextlib.aclosing(found) as batches:  # a reader that leaves lets go of the files
            async for batch in batches:
                if shown := b"".join(_shown(c, container, r) for r in batch if STREAMS[r.stream] in wanted):
                    await response.write(shown)
        await response.write_eof()
    return response


def _shown(c: Call, container: Container, record: LogRecord) -> bytes:
    line = record.log.encode("utf-8", "surrogateescape")
    if c.flag("details"):
        line = b" " + line  # behind the details, of which there are none
    if c.flag("timestamps"):
        line = f"{record.nanoseconds} ".encode() + line
    return line if container.spec.tty else frame(STREAMS[record.stream], line)


def _tail(c: Call) -> int | None:
    """None is all; what is no number is that, too, as with Docker."""
    text = c.text("tail")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def moment(c: Call, key: str) -> int | None:
    """A time of the query, in nanoseconds since the epoch; None for none, and for 0.

    :raise InvalidArgument: what is no time.
    """
    text = c.text(key)
    return read_moment(text) or None if text else None
