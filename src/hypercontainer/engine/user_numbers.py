# SPDX-License-Identifier: Apache-2.0
"""As which users machines run: each has a number of its own, which the database knows before its hypervisor starts.

A number is taken until its machine has ended, also over the daemon's end. That another daemon of this host with the
same range, or anybody else, does not use it is looked up among the host's processes; and each daemon begins at a place
of its own in the range, since what another has claimed a moment ago is not yet a process.
"""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Container
from pathlib import Path

from ..errors import Unavailable
from ..state import changes
from ..state.journal import Journal
from ..sys import users


class UserNumbers:
    """The only holder of them."""

    def __init__(self, journal: Journal, root: Path) -> None:
        """:param root: the daemon's own directory, which no other daemon has."""
        self._journal = journal
        self._taken = journal.database.users()
        self._place = zlib.crc32(os.fsencode(root.resolve()))

    def claim(self, allotment: str, *, fenced: bool) -> int:
        """The first number that is free, of those that are kept from the host's loopback or of the others.

        :raise Unavailable: there is none.
        """
        numbers = users.ranges().fenced if fenced else users.ranges().open
        others = users.in_use()
        begin = self._place % len(numbers)
        order = itertools.chain(numbers[begin:], numbers[:begin])
        number = next((n for n in order if n not in self._taken and n not in others), None)
        if number is None:
            raise Unavailable(
                f"all {len(numbers)} user numbers for virtual machines are taken",
                hint="stop some, or give hyperd a larger range by `users` in its configuration",
            )
        self.keep(allotment, number)
        return number

    def keep(self, allotment: str, number: int) -> None:
        """It has this one; 0 is none. Idempotent."""
        if number and self._taken.get(number) != allotment:
            self._taken[number] = allotment
            self._journal.write(changes.user_taken(number, allotment))

    def release(self, allotment: str) -> None:
        """It has none. Idempotent."""
        freed = [number for number, owner in self._taken.items() if owner == allotment]
        for number in freed:
            del self._taken[number]
            self._journal.later(changes.user_free(number))  # until then nobody has it

    def sweep(self, live: Container[str]) -> None:
        """Forget those of allotments that are not live, unless a process runs as one: its record may be unreadable."""
        dead = {number: a for number, a in self._taken.items() if a not in live}
        others = users.in_use() if dead else set()
        for allotment in {a for number, a in dead.items() if number not in others}:
            self.release(allotment)
