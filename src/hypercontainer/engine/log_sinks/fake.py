# SPDX-License-Identifier: Apache-2.0
"""Sinks without a file: one that keeps what it gets in memory, one that keeps nothing."""

from __future__ import annotations

from .sink import Piece


class NullSink:
    """For `--log-driver none`."""

    def open(self) -> None: ...

    def write(self, piece: Piece) -> None: ...

    def flush(self) -> None: ...

    def reopen(self) -> None: ...

    def close(self) -> None: ...


class FakeSink(NullSink):
    """`fails` is why it takes nothing."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.fails: OSError | None = None
        self.opened = self.closed = False

    def open(self) -> None:
        if self.fails:
            raise self.fails
        self.opened = True

    def write(self, piece: Piece) -> None:
        if self.fails:
            raise self.fails
        self.pieces.append(piece)

    def reopen(self) -> None:
        self.open()

    def close(self) -> None:
        self.closed = True
