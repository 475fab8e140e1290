# SPDX-License-Identifier: Apache-2.0
"""The flags for how long something lives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..model.units import parse_duration

OPTIONS = [
    click.option("--ttl", default="", metavar="DURATION", help="Stop it so long after its start, such as 1h30m."),
    click.option(
        "--idle-timeout",
        default="",
        metavar="DURATION",
        help="Suspend it when it has had nothing to do for so long; it goes on when it is wanted.",
    ),
]


def lifetime_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """All of them."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def lifetime_of(o: dict[str, Any]) -> dict[str, Any]:
    """`ttl` and `idle_timeout` in seconds; 0 of one that is not given."""
    return {name: parse_duration(o[name] or 0) for name in ("ttl", "idle_timeout")}


def podfile_lifetime(o: dict[str, Any]) -> dict[str, Any]:
    """The same as a podfile has it."""
    found = lifetime_of(o)
    return {"ttl": found["ttl"], "idleTimeout": found["idle_timeout"]}
