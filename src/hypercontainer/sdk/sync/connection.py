# SPDX-License-Identifier: Apache-2.0
"""Made of `sdk/connection.py` by scripts/make_sync_sdk.py: change that, and run it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from ..connection import AsyncConnection
from ..limits import DEFAULT
from ..portal import call, run


class Connection:
    """A stream of bytes both ways."""

    def __init__(self, wrapped: AsyncConnection) -> None:
        self._wrapped = wrapped

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        run(self._wrapped.__aexit__(kind, _, __))

    def close(self) -> None:
        """Both ways, at once."""
        call(self._wrapped.close)

    def read(self, *, timeout: float = DEFAULT) -> bytes:
        """What comes next; b"" when the other side says no more.

        :raise GuestError: nobody listens on that port.
        """
        return run(self._wrapped.read(timeout=timeout))

    def write(self, data: bytes, *, timeout: float = DEFAULT) -> None:
        """Returns when there is room for more."""
        run(self._wrapped.write(data, timeout=timeout))

    def write_eof(self, *, timeout: float = DEFAULT) -> None:
        """This side says no more."""
        run(self._wrapped.write_eof(timeout=timeout))
