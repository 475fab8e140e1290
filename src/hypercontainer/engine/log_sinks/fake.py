# SPDX-License-Identifier: Apache-2.0
"""A sink without a file: it keeps what it gets in memory."""

from __future__ import annotations

from .sink import NullSink, Piece


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
