# SPDX-License-Identifier: Apache-2.0
"""What counts as a step of a daemon: a change that it makes to its host, as Python's audit hook tells of it.

A file that is made, changed, renamed or removed, and a child process. Calls that the interpreter tells nothing of are
named by who counts. The table of audit events: https://docs.python.org/3/library/audit_events.html.
"""

from __future__ import annotations

import os
import sys
from typing import Any

CHANGES = frozenset((
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.rename",
    "os.link",
    "os.symlink",
    "os.truncate",
    "subprocess.Popen",
))  # fmt: skip
_MAKES = os.O_CREAT | os.O_TRUNC
_OURS, _HELPERS = "/hypercontainer/", ("/sys/", "/state/")


def is_change(event: str, args: tuple[Any, ...]) -> bool:
    """Whether an audit event tells of one; an `open` does where it may make a file."""
    if event == "open":
        return bool(args[2] & _MAKES) and not isinstance(args[0], int) and not args[2] & os.O_DIRECTORY
    return event in CHANGES


def place(depth: int = 2) -> str:
    """The innermost line of the engine, or of what serves it, that a change comes from; `depth` frames are left out."""
    frame, found = sys._getframe(depth), "?"
    while frame is not None:
        code = frame.f_code
        if _OURS in code.co_filename:
            found = f"{code.co_filename.rpartition('/')[2]}:{frame.f_lineno} {code.co_qualname}"
            if not any(f"{_OURS[:-1]}{helper}" in code.co_filename for helper in _HELPERS):
                break
        frame = frame.f_back  # type: ignore[assignment]
    return found
