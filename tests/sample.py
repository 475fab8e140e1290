# SPDX-License-Identifier: Apache-2.0
"""Of many trials that differ only by the place at which something comes between: those that this run makes.

A run makes each Nth, beginning with another one every day, and with another one for each of the things that are
tried; so N days see all of them, and `make slow` does at once.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

EVERY = 16  # trials of which one is made, where nothing else is said
LEFT_OUT = "left out"  # what the account of trials calls the others


@dataclass(frozen=True)
class Sample:
    """Each `every`th; 1 is all of them. `first` moves the beginning."""

    every: int = 1
    first: int = 0

    def pick(self, count: int, what: str) -> range:
        """Places from 0 on, of `count` that there are: one at least, unless there is none."""
        if not count:
            return range(0)
        return range((self.first + zlib.crc32(what.encode())) % min(self.every, count), count, self.every)


def out_of_turn(marked: Sequence[tuple[int, str]], today: int) -> Iterator[int]:
    """Places, among tests with the mark `turns(N)`, of those that are not made today.

    :param marked: of each its N, and its file: of a file's with the same N, one in N is made.
    """
    for every, file in dict.fromkeys(marked):
        places = [place for place, of_it in enumerate(marked) if of_it == (every, file)]
        now = Sample(every, today).pick(len(places), file)
        yield from (place for n, place in enumerate(places) if n not in now)
