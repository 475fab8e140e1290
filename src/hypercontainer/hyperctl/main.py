# SPDX-License-Identifier: Apache-2.0
"""The entry point of hyperctl.

The commonest calls take the quick way, which imports little; click reads the
others, and everything that the quick way does not understand.
"""

from __future__ import annotations

import os
import sys

from ..errors import HyperError, StartFailed
from .quick import quick, split


def exit_status(error: HyperError, verb: str) -> int:
    """Docker's: 126 and 127 for the program, 125 for ours in run, 1 elsewhere."""
    if isinstance(error, StartFailed):
        return error.exit_status
    return 125 if verb == "run" else 1


def _status(args: list[str]) -> int:
    status = quick(args)
    if status is None:
        from .cli import run

        status = run(args)
    return status


def main() -> None:
    """The only place that prints errors and exits."""
    args = sys.argv[1:]
    try:
        status = _status(args)
        sys.stdout.flush()
    except HyperError as error:
        print(f"hyperctl: {error}", file=sys.stderr)
        status = exit_status(error, split(args)[1])
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing more can be said there
        status = 141
    # Nothing is left to be tidied up, and the interpreter takes its time for that.
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
