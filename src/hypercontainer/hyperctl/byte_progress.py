# SPDX-License-Identifier: Apache-2.0
"""How much of something long has been copied: a bar on a terminal, once it has taken a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

_QUICK = 1.0  # seconds that nobody minds


def shown(pieces: Iterable[bytes], what: str, total: int | None = None) -> Iterator[bytes]:
    """The same pieces, as they pass; `total` are their bytes, None when that is not known."""
    bar, task, passed, began = None, None, 0, time.monotonic()
    try:
        for piece in pieces:
            yield piece
            passed += len(piece)
            if bar is None and sys.stderr.isatty() and time.monotonic() - began > _QUICK:
                bar = _bar()
                task = bar.add_task(what, total=total)
                bar.start()
            if bar is not None:
                bar.update(task, completed=passed)
    finally:
        if bar is not None:
            bar.stop()


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()]
    return Progress(*columns, console=Console(stderr=True))
