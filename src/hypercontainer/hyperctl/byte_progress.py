# SPDX-License-Identifier: Apache-2.0
"""How much of something long has been copied: a bar on a terminal, once it has taken a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

_QUICK = 1.0  # seconds that nobody minds


class Bar:
    """One of it."""

    def __init__(self, what: str, *, quiet: bool = False) -> None:
        self._what = what
        self._quiet = quiet or not sys.stderr.isatty()
        self._bar: Any = None
        self._task: Any = None
        self._began = time.monotonic()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, passed: int, total: int | None) -> None:
        """So many bytes of `total`, None when that is not known."""
        if self._bar is None and not self._quiet and time.monotonic() - self._began > _QUICK:
            self._bar = _bar()
            self._task = self._bar.add_task(self._what, total=total)
            self._bar.start()
        if self._bar is not None:
            self._bar.update(self._task, completed=passed, total=total)


def shown(pieces: Iterable[bytes], what: str, total: int | None = None) -> Iterator[bytes]:
    """The same pieces, as they pass; `total` are their bytes, None when that is not known."""
    passed = 0
    with Bar(what) as bar:
        for piece in pieces:
            yield piece
            passed += len(piece)
            bar.update(passed, total)


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()]
    return Progress(*columns, console=Console(stderr=True))
