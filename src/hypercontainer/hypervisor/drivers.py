# SPDX-License-Identifier: Apache-2.0
"""The drivers that a daemon has, by their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..errors import InvalidArgument, Unsupported
from .abilities import has, refusal
from .driver import KINDS, Driver

AUTO = "auto"


class Drivers:
    """Each sandbox is launched, and found again, by one of them."""

    def __init__(self, drivers: Iterable[Driver], default: str = "") -> None:
        """`default` serves who names none; "" is the first one, and `auto` chooses in the order that they have here.

        :raise InvalidArgument: when there is no such driver.
        """
        self._known = {d.name: d for d in drivers}
        self._chooses = default == AUTO
        self.default = self.get(next(iter(self._known)) if self._chooses or not default else default)

    def get(self, name: str) -> Driver:
        """By its name; of "" and `auto` the one that serves who asks for nothing.

        :raise InvalidArgument: when there is no such driver.
        """
        if name in ("", AUTO):
            return self.default
        if found := self._known.get(name):
            return found
        raise InvalidArgument(f"there is no driver {name!r}", hint=f"this hyperd has {', '.join(self._known)}")

    async def choose(self, name: str, kinds: Iterable[type]) -> tuple[Driver, str]:
        """The driver for a machine with parts of these kinds, and why it is that one.

        :raise InvalidArgument: there is no such driver.
        :raise Unsupported: it lacks something; with a driver that has it. By `auto`: each lacks something.
        """
        wanted = list(kinds)
        if name != AUTO and (name or not self._chooses):
            self.check(driver := self.get(name), wanted)
            return driver, "it was asked for" if name else "it is the default"
        passed: list[str] = []
        for driver in self:
            if lack := next((k for k in wanted if not has(driver, k)), None):
                passed.append(f"{driver.name} does not support {KINDS[lack]}")
            elif trouble := (await driver.probe()).trouble:
                passed.append(f"{driver.name} does not work: {trouble}")
            else:
                first = f"the first of {', '.join(self._known)} that works and has what it asks for"
                return driver, "; ".join(["auto: " + first, *passed])
        raise Unsupported(f"no driver can run this: {'; '.join(passed)}")

    def check(self, driver: Driver, kinds: Iterable[type]) -> None:
        """:raise Unsupported: it lacks one of these; with a driver that has it."""
        for kind in kinds:
            if not has(driver, kind):
                raise refusal(driver, kind, list(self))

    def __contains__(self, name: object) -> bool:
        """Whether `get` finds one."""
        return not name or name == AUTO or name in self._known

    def __iter__(self) -> Iterator[Driver]:
        return iter(self._known.values())
