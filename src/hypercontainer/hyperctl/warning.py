# SPDX-License-Identifier: Apache-2.0
"""Docker's question before much is removed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from ..errors import InvalidArgument


def ask(what: Sequence[str]) -> None:
    """Say what goes, and go on only if that is meant.

    :raise InvalidArgument: when nobody can be asked. :raise click.Abort: the user does not want it.
    """
    if not sys.stdin.isatty():
        raise InvalidArgument(
            f"this removes {' and '.join(what)}, and there is no terminal to ask on", hint="give -f if that is meant"
        )
    print("WARNING! This will remove:")
    for line in what:
        print(f"  - {line}")
    print()
    click.confirm("Are you sure you want to continue?", abort=True)
