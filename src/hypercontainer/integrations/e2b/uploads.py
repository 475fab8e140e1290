# SPDX-License-Identifier: Apache-2.0
"""Files that clients send for builds: kept without a name, so that nothing of them outlives the server."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import IO

from ...errors import DeadlineExceeded, NoSpace
from ...sys import tasks

_COUNT_MAX = 256  # of a template
_SIZE_MAX = 16 << 30  # bytes of all
_SILENCE = 60.0  # seconds without a byte, after which nobody sends any more


class Uploads:
    """By template and hash, as long as a build of that template is under way."""

    def __init__(self) -> None:
        self._files: dict[str, dict[str, IO[bytes]]] = {}
        self._sizes: dict[IO[bytes], int] = {}
        self._under_way: Counter[str] = Counter()  # templates

    def of(self, template: str) -> Mapping[str, IO[bytes]]:
        """Those of one template, by their hashes."""
        return self._files.get(template, {})

    async def take(self, template: str, hash_: str, content: AsyncIterator[bytes], largest: int) -> None:
        """In the place of what was sent before. `largest`: bytes.

        :raise NoSpace: it is too large, or there is too much of them.
        :raise DeadlineExceeded: nothing more of it comes.
        """
        own = self._files.setdefault(template, {})
        if hash_ not in own and len(own) + self._under_way[template] >= _COUNT_MAX:
            raise NoSpace(f"a build has at most {_COUNT_MAX} uploads")
        file = tempfile.TemporaryFile()
        self._sizes[file] = 0
        self._under_way[template] += 1
        try:
            await self._write(content, file, largest)
        except BaseException as error:
            self._close(file)
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(f"nothing of the upload has come for {_SILENCE:g} s") from None
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise NoSpace("the server's disk is full, through which files go") from None
            raise
        finally:
            self._under_way -= Counter([template])
        if self._files.get(template) is not own:  # its build has ended meanwhile
            self._close(file)
            return
        before, own[hash_] = own.get(hash_), file
        if before:
            self._close(before)

    async def _write(self, content: AsyncIterator[bytes], file: IO[bytes], largest: int) -> None:
        while (piece := await tasks.within(anext(content, None), _SILENCE)) is not None:
            self._sizes[file] += len(piece)
            if self._sizes[file] > largest or sum(self._sizes.values()) > _SIZE_MAX:
                raise NoSpace(f"an upload has at most {largest >> 30} GiB, all have {_SIZE_MAX >> 30} GiB")
            file.write(piece)
        file.flush()

    def drop(self, template: str) -> None:
        """Those of one template. Idempotent."""
        for file in self._files.pop(template, {}).values():
            self._close(file)

    def _close(self, file: IO[bytes]) -> None:
        del self._sizes[file]
        with contextlib.suppress(OSError):  # a full disk does not take the rest of it, and need not
            file.close()
