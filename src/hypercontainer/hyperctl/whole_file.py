# SPDX-License-Identifier: Apache-2.0
"""Files that a command writes, and others read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import HyperError


@contextlib.contextmanager
def written(path: str) -> Iterator[BinaryIO]:
    """A file that is there when it is whole. :raise HyperError: it cannot be written."""
    temporary = Path(f"{path}.{os.getpid()}.part")
    try:
        with open(temporary, "xb") as out:
            yield out
        os.replace(temporary, path)
    except OSError as error:
        raise HyperError(f"cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
