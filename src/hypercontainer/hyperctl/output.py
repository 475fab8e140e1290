# SPDX-License-Identifier: Apache-2.0
"""Tables, JSON and Docker's simple templates."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ..errors import InvalidArgument
from .template import parse
from .template_functions import HEAD_FUNCTIONS


def print_json(value: object) -> None:
    print(json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False))


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """A sign of life on a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as their widest cell and at least seven, three spaces between: Docker's tables."""
    cells = [list(head), *(list(r) for r in rows)]
    widths = [max(7, *(len(r[i]) for r in cells)) for i in range(len(head))]
    for row in cells:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def render(template: str, value: object) -> str:
    """A document by a template of Docker's.

    :raise InvalidArgument: on an unknown field, or a template that is none.
    """
    return parse(template.removeprefix("table "))(msgspec.to_builtins(value))


def print_one(value: object, format_: str, text: Callable[[], None]) -> None:
    """One document: as JSON, by a template, or, where neither is asked for, as `text` prints it.

    :raise InvalidArgument: as `render`.
    """
    if format_ == "json":
        print_json(value)
    elif format_:
        print(render(format_, value))
    else:
        text()


# Heads of columns that are not their field's name in capitals.
_HEADS = {
    "buildcache": "BUILD CACHE", "createdat": "CREATED AT", "createdby": "CREATED BY", "createdsince": "CREATED",
    "id": "ID", "imageid": "IMAGE ID", "localvolumes": "LOCAL VOLUMES", "networkids": "NETWORK IDS",
    "runningfor": "CREATED", "sharedsize": "SHARED SIZE", "totalcount": "TOTAL", "uniquesize": "UNIQUE SIZE",
    "virtualsize": "SIZE",
}  # fmt: skip


def _head(template: str, own: Mapping[str, str]) -> str:
    """The heads, by the template itself, as Docker does it; of nested fields the last one's name."""
    heads: dict[str, Any] = {}
    for path in re.findall(r"\.(\w+(?:\.\w+)*)", template):
        inner = heads
        *way, last = path.split(".")
        for part in way:
            inner[part] = inner = inner[part] if isinstance(inner.get(part), dict) else {}
        inner[last] = own.get(last.lower()) or _HEADS.get(last.lower()) or last.upper()
    return parse(template, HEAD_FUNCTIONS)(heads)


def show(
    items: Sequence[Any],
    format_: str,
    head: Sequence[str],
    row: Callable[[Any], Sequence[str]],
    fields: Callable[[Any], object] | None = None,
    heads: Mapping[str, str] | None = None,
) -> None:
    """A list as a table, as JSON, or by a template; `fields` gives a template's and JSON's view, `heads` the
    columns' heads where a field (in small letters) has one of its own here.
    """
    view = fields or (lambda item: item)
    if format_ == "json":
        print_json([_without_label(view(i)) for i in items])
    elif format_.startswith("table "):
        template = format_.removeprefix("table ")
        write = parse(template)
        cells = [write(msgspec.to_builtins(view(i))).split("\t") for i in items]
        with contextlib.suppress(InvalidArgument):  # of something that only values can go through
            cells.insert(0, _head(template, heads or {}).split("\t"))
        width = max((len(c) for c in cells), default=0)
        padded = [c + [""] * (width - len(c)) for c in cells]
        print_table(padded[0] if padded else [], padded[1:])
    elif format_ and format_ != "table":
        write = parse(format_)
        for item in items:
            print(write(msgspec.to_builtins(view(item))))
    else:
        print_table(head, [row(i) for i in items])


def _without_label(found: object) -> object:
    """What a template finds single labels in is no field."""
    return {k: v for k, v in found.items() if k != "label"} if isinstance(found, dict) else found


def show_details(items: Sequence[Any], format_: str) -> None:
    """Whole objects: as JSON, or each by a template."""
    if format_ and format_ != "json":
        for item in items:
            print(render(format_, item))
    else:
        print_json(items)


class PullProgress:
    """A bar per layer on a terminal; elsewhere a line for each change of state."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._last: dict[str, str] = {}
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            columns = [
                TextColumn("{task.fields[short]}"),
                TextColumn("{task.description:<17}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
            ]
            self._bars = Progress(*columns, console=Console(stderr=True))

    def __enter__(self) -> PullProgress:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars:
            self._bars.stop()

    def update(self, update: dict[str, Any]) -> None:
        id_, status = update.get("id", ""), update.get("status", "")
        if self._quiet or not status:
            return
        short = id_.removeprefix("sha256:")[:12]
        if self._bars and id_:
            if id_ not in self._tasks:
                self._tasks[id_] = self._bars.add_task(status, total=update["total"] or None, short=short)
            self._bars.update(
                self._tasks[id_], description=status, completed=update["current"], total=update["total"] or None
            )
        elif self._last.get(id_) != status:
            self._last[id_] = status
            line = f"{short}: {status}" if short else status
            if self._bars:
                self._bars.console.print(line, highlight=False)
            else:
                print(line, file=sys.stderr, flush=True)
