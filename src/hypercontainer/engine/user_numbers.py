# SPDX-License-Identifier: Apache-2.0
"""As which users machines run: each has a number of its own, which the database knows before its hypervisor starts.

A number is taken until its machine has ended, also over the daemon's end. That another daemon of this host with the
same range, or anybody else, does not use it is looked up among the host's processes.
"""

from __future__ import annotations

from collections.abc import Container

from ..errors import Unavailable
from ..state import changes
from ..state.journal import Journal
from ..sys import users


class UserNumbers:
    """The only holder of them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._taken = journal.database.users()

    def claim(self, allotment: str, *, fenced: bool) -> int:
        """The lowest number that is free, of those that are kept from the host's loopback or of the others.

        :raise Unavailable: there is none.
        """
        numbers = users.ranges().fenced if fenced else users.ranges().open
        others = users.in_use()
        number = next((n for n in numbers if n not in self._taken and n not in others), None)
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
        others = users.in_use()
        for allotment in {a for number, a in self._taken.items() if a not in live and number not in others}:
            self.release(allotment)
