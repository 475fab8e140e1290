# SPDX-License-Identifier: Apache-2.0
"""Made of `sdk/watch.py` by scripts/make_sync_sdk.py: change that, and run it."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from ...model.files import FileChange
from ..limits import LONG
from ..portal import call, iterate, run
from ..watch import AsyncWatch


class Watch:
    """A directory that is watched, until this is closed or the directory has gone."""

    def __init__(self, wrapped: AsyncWatch) -> None:
        self._wrapped = wrapped

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        run(self._wrapped.__aexit__(kind, _, __))

    def close(self) -> None:
        """Watch no more."""
        call(self._wrapped.close)

    def __iter__(self) -> Iterator[FileChange]:
        return iterate(self._wrapped.__aiter__())

    def changes(self, *, timeout: float = LONG) -> Iterator[FileChange]:
        """As they happen; of several that are alike some may be told as one. `timeout`: seconds in all.

        :raise DeadlineExceeded: the time is over. :raise Unavailable: the sandbox has ended.
        """
        return iterate(self._wrapped.changes(timeout=timeout))
