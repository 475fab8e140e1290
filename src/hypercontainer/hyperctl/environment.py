# SPDX-License-Identifier: Apache-2.0
"""Environment variables as flags name them; imports little, for the quick way."""

from __future__ import annotations

import os

from ..errors import InvalidArgument


def resolve(entries: list[str]) -> list[str]:
    """NAME=VALUE as it is; a bare name takes its value from here, or is left out.

    :raise InvalidArgument: when an entry has no name, or one with a space.
    """
    found = []
    for entry in entries:
        name, equals, _ = entry.partition("=")
        if not name or any(c.isspace() for c in name):
            raise InvalidArgument(f"invalid environment variable {entry!r}", hint="write NAME=value")
        if equals:
            found.append(entry)
        elif name in os.environ:
            found.append(f"{name}={os.environ[name]}")
    return found
