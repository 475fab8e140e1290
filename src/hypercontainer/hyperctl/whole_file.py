# SPDX-License-Identifier: Apache-2.0
"""Files that a command writes, and others read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import HyperError
from .standard import write_all


@contextlib.contextmanager
def written(path: str, *, private: bool = False) -> Iterator[BinaryIO]:
    """A file that is there when it is whole, and its owner's only if it is `private`. What is there and is no file, as
    /dev/null, is written to.

    :raise HyperError: it cannot be.
    """
    target = Path(path)
    found = target.exists() and not target.is_file()
    place = target if found else Path(f"{path}.{os.getpid()}.part")
    try:
        with open(place, "wb" if found else "xb", opener=_private if private else None) as out:
            yield out
        if not found:
            os.replace(place, path)
    except OSError as error:
        raise HyperError(f"cannot write {path}: {error.strerror}") from error
    finally:
        if not found:
            place.unlink(missing_ok=True)


def write_out(pieces: Iterable[bytes], path: str | None, *, private: bool = False) -> None:
    """To that file, as `written` does; to stdout where there is none."""
    if not path:
        for piece in pieces:
            write_all(1, memoryview(piece))
        return
    with written(path, private=private) as out:
        for piece in pieces:
            out.write(piece)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
