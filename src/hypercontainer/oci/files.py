# SPDX-License-Identifier: Apache-2.0
"""Files that callers name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument, NotFound


def read_object(path: str | Path) -> dict[str, Any]:
    """A JSON object; `-` is stdin.

    :raise NotFound: it is not there. :raise InvalidArgument: it is none.
    """
    try:
        found = json.loads(sys.stdin.read() if str(path) == "-" else Path(path).read_text())
    except OSError as error:
        raise NotFound(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise InvalidArgument(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidArgument(f"{path} has no JSON object")
    return found


def write_pid(path: str, pid: int) -> None:
    """For who waits for it: whole, or not there."""
    if path:
        new = Path(f"{path}.new")
        new.write_text(str(pid))
        new.replace(path)
