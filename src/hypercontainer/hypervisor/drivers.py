# SPDX-License-Identifier: Apache-2.0
"""The drivers that a daemon has, by their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..errors import InvalidArgument
from .driver import Driver


class Drivers:
    """Each sandbox is launched, and found again, by one of them."""

    def __init__(self, drivers: Iterable[Driver], default: str = "") -> None:
        """`default` serves who names none; "" is the first one.

        :raise InvalidArgument: when there is no such driver.
        """
        self._known = {d.name: d for d in drivers}
        self.default = self.get(default or next(iter(self._known)))

    def get(self, name: str) -> Driver:
        """:raise InvalidArgument: when there is no such driver."""
        if not name:
            return self.default
        if found := self._known.get(name):
            return found
        raise InvalidArgument(f"there is no driver {name!r}", hint=f"this hyperd has {', '.join(self._known)}")

    def __contains__(self, name: object) -> bool:
        """Whether `get` finds one."""
        return not name or name in self._known

    def __iter__(self) -> Iterator[Driver]:
        return iter(self._known.values())
