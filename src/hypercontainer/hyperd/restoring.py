# SPDX-License-Identifier: Apache-2.0
"""hyperd --restore FILE."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from ..engine.backup.putting_back import PutBack, put_back
from ..engine.paths import Paths
from ..errors import NotFound, PermissionDenied
from ..model.units import format_size
from .config import Config
from .daemon import locked

_STEP = 64 << 20  # bytes after which a terminal is told


def restore_backup(config: Config, file: str) -> None:
    """Fill the root directory, and say what there is now.

    :raise NotFound: the file cannot be read; and what `put_back` raises.
    """
    paths = Paths(config.root_path, config.run_path)
    os.umask(0o077)
    try:
        paths.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(paths.root / "hyperd.lock"), _opened(file) as source:
            done = put_back(source, paths)
    except PermissionError as error:
        raise PermissionDenied(f"cannot write to {error.filename}", hint="restore as hyperd's user") from error
    print(_told(done, config))
    if done.end.missing:
        such_as = "".join(f"\n  {each}" for each in done.end.such_as)
        print(f"{done.end.missing} files went, changed or could not be read while it was made, and are not there as a "
              f"whole:{such_as}", file=sys.stderr)  # fmt: skip


def _told(done: PutBack, config: Config) -> str:
    m = done.manifest
    left = f", without {' and '.join(m.without)}" if m.without else ""
    return (f"{config.root_path} is as it was at {m.created_at}{left}: {done.containers} containers, "
            f"{done.volumes} volumes; start hyperd")  # fmt: skip


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    try:
        opened = sys.stdin.buffer if file == "-" else open(file, "rb")  # closed below
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise NotFound(f"cannot read {file}: {error.strerror}") from error
    with opened as source:
        total = None if file == "-" else os.fstat(source.fileno()).st_size
        yield io.BufferedReader(_Shown(source, total), 1 << 20)


class _Shown(io.RawIOBase):
    """A file of which a terminal is told how much has been read."""

    def __init__(self, source: BinaryIO, total: int | None) -> None:
        self._source = source
        self._total = total
        self._read = self._told = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        self._read += len(data)
        if sys.stderr.isatty() and (self._read - self._told >= _STEP or (not data and self._told)):
            self._told = self._read
            of = f" of {format_size(self._total)}" if self._total else ""
            print(f"\r{format_size(self._read)}{of}", end="\n" if not data else "", file=sys.stderr, flush=True)
        return len(data)
