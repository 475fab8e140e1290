# SPDX-License-Identifier: Apache-2.0
"""Versions of the Engine API: a client says in a route's first part which one it speaks."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import InvalidArgument


class ApiVersion(NamedTuple):
    """Compares as versions do: 1.9 is before 1.24."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


OLDEST = ApiVersion(1, 24)
NEWEST = ApiVersion(1, 51)
ENGINE = "28.2.2"  # whose behaviour this is: clients look at it before they use what is new (compose, DDEV)


def negotiated(text: str) -> ApiVersion:
    """The version in a route; "" is the newest.

    :raise InvalidArgument: one that is not spoken here.
    """
    if not text:
        return NEWEST
    asked = ApiVersion(*(int(n) for n in text.split(".")))
    if asked < OLDEST:
        raise InvalidArgument(
            f"client version {asked} is too old. Minimum supported API version is {OLDEST}, "
            "please upgrade your client to a newer version"
        )
    if asked > NEWEST:
        raise InvalidArgument(f"client version {asked} is too new. Maximum supported API version is {NEWEST}")
    return asked
