# SPDX-License-Identifier: Apache-2.0
"""Tables, JSON and Docker's simple templates."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from ..errors import InvalidArgument

_FIELD = re.compile(r"\{\{\s*(json\s+)?\.([\w.]*)\s*\}\}")


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
    """Columns as wide as their widest cell, three spaces between."""
    cells = [list(head), *(list(r) for r in rows)]
    widths = [max(len(r[i]) for r in cells) for i in range(len(head))]
    for row in cells:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _lookup(value: Any, path: str) -> Any:
    for part in filter(None, path.split(".")):
        if not isinstance(value, dict):
            value = None
            break
        match = next((k for k in value if k.lower() == part.lower()), None)
        if match is None:
            raise InvalidArgument(f"there is no field {part!r}", hint=f"there are {', '.join(sorted(value))}")
        value = value[match]
    return value


def render(template: str, value: object) -> str:
    """`{{.Name}}` and `{{json .State}}`, the part of Go's templates that scripts use.

    :raise InvalidArgument: on an unknown field, or another construct.
    """
    document = msgspec.to_builtins(value)

    def replace(match: re.Match[str]) -> str:
        found = _lookup(document, match[2])
        plain = isinstance(found, str) and not match[1]
        return found if plain else json.dumps(found, ensure_ascii=False)

    if "{{" in _FIELD.sub("", template):
        raise InvalidArgument(f"template {template!r} is not understood", hint="use {{.Field}} and {{json .Field}}")
    return _FIELD.sub(replace, template.removeprefix("table ").replace("\\t", "\t").replace("\\n", "\n"))


def _heads(template: str) -> list[str]:
    """The columns' heads, by the last part of each field's name."""
    cells = template.replace("\\t", "\t").split("\t")
    return [_FIELD.sub(lambda m: m[2].rpartition(".")[2].upper(), cell) for cell in cells]


def show(
    items: Sequence[Any],
    format_: str,
    head: Sequence[str],
    row: Callable[[Any], Sequence[str]],
    fields: Callable[[Any], object] | None = None,
) -> None:
    """A list as a table, as JSON, or by a template; `fields` gives a template's and JSON's view."""
    view = fields or (lambda item: item)
    if format_ == "json":
        print_json([view(i) for i in items])
    elif format_.startswith("table "):
        template = format_.removeprefix("table ")
        heads = _heads(template)
        rows = [render(template, view(i)).split("\t") for i in items]
        print_table(heads, [(r + [""] * len(heads))[: len(heads)] for r in rows])
    elif format_ and format_ != "table":
        for item in items:
            print(render(format_, view(item)))
    else:
        print_table(head, [row(i) for i in items])


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
