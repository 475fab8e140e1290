# SPDX-License-Identifier: Apache-2.0
"""logs."""

from __future__ import annotations

from itertools import chain

import click

from ..client.api import container_route
from ..errors import InvalidArgument, NotFound
from ..model.moments import read_moment, write_moment
from .context import client
from .standard import write_all


def _moment(text: str | None) -> str:
    return write_moment(read_moment(text)) if text else ""


def lines_of(tail: str) -> int | None:
    """What `--tail` asks for; None is all.

    :raise InvalidArgument: it is no number.
    """
    if tail == "all":
        return None
    if not tail.isdecimal():
        raise InvalidArgument(f"invalid number of lines {tail!r}", hint="give 0 or more, or all")
    return int(tail)


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added.")
@click.option("-n", "--tail", default="all", help="Only the last so many lines.")
@click.option("--since", help="Only what came after: 2026-01-31T12:00:00Z, or 10m for ten minutes ago.")
@click.option("--until", help="Only what came before.")
@click.option("-t", "--timestamps", is_flag=True, help="With the time of each line.")
@click.argument("container")
def logs(container: str, follow: bool, tail: str, since: str | None, until: str | None, timestamps: bool) -> None:
    """Show the output of a container, or of the first one of a pod, past and present."""
    query = {
        "follow": follow,
        "tail": lines_of(tail),
        "since": _moment(since),
        "until": _moment(until),
    }
    c = client()
    try:
        records = c.lines("GET", container_route(container, "/logs"), query)
        first = next(records, None)
    except NotFound:
        from .podrun import container_of

        records = c.lines("GET", container_route(container_of(c, container).id, "/logs"), query)
        first = next(records, None)
    line_begins = {"stdout": True, "stderr": True}
    for record in chain([first] if first else [], records):
        text: str = record["log"]
        if timestamps and line_begins[record["stream"]]:
            text = f"{record['time']} {text}"
        line_begins[record["stream"]] = text.endswith("\n")
        data = text.encode("utf-8", "surrogateescape")
        fd = 2 if record["stream"] == "stderr" else 1
        write_all(fd, memoryview(data))
