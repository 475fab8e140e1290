# SPDX-License-Identifier: Apache-2.0
"""What is read of a build as it passes by: of its context, its arguments and its answer."""

from __future__ import annotations

import contextlib
import json
import re
import zlib
from collections.abc import Iterator

from ...errors import HyperError
from .dockerd import Query

ID = re.compile("sha256:[0-9a-f]{64}")  # what has been taken over may say any name, of an image of ours
_LINE_MAX = 1 << 20  # bytes of a line of the answer that is looked at
_SLICE = 1 << 20  # bytes of a context that are unpacked at once
_LOOKED_AT = 1 << 30  # bytes of an unpacked context in which names of images are looked for


class Made:
    """Reads along in an answer: which image was made, and whether the build failed."""

    def __init__(self) -> None:
        self.id = ""
        self.failed = False
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """The next piece of the answer."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest if len(rest) < _LINE_MAX else b""
        for line in lines:
            if b'"error' in line or b'"ID"' in line:
                self._look(line)

    def _look(self, line: bytes) -> None:
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(line)
            if not isinstance(found, dict):
                return
            self.failed = self.failed or "error" in found
            aux = found.get("aux")
            if isinstance(aux, dict) and isinstance(id_ := aux.get("ID"), str) and ID.fullmatch(id_):
                self.id = id_


class Plain:
    """What a context says, whether it is compressed with gzip or not.

    Little may unpack to very much: it comes in slices, and what is behind the first GiB is not looked at.
    """

    def __init__(self) -> None:
        self._unpack: zlib._Decompress | None = None
        self._first = True
        self._left = _LOOKED_AT

    def of(self, data: bytes) -> Iterator[bytes]:
        """What a piece has, in slices; nothing from where it is damaged on."""
        if self._first and data:
            self._first = False
            self._unpack = zlib.decompressobj(31) if data.startswith(b"\x1f\x8b") else None
        if self._unpack is None:
            yield data
            return
        with contextlib.suppress(zlib.error):  # dockerd says so
            while data and self._left > 0:
                found = self._unpack.decompress(data, _SLICE)
                self._left -= len(found)
                yield found
                data = self._unpack.unconsumed_tail


def named(query: Query) -> list[str]:
    """What a query has that may be images' names: values of build arguments, and images to take a cache from."""
    given, found = dict(query), []
    for key in ("buildargs", "cachefrom"):
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            document = json.loads(given.get(key) or "null")
            values = document.values() if isinstance(document, dict) else document
            found += [v for v in values or () if isinstance(v, str)]
    return found


def error_line(error: HyperError) -> bytes:
    """As dockerd tells of one in the midst of an answer."""
    return json.dumps({"errorDetail": {"message": str(error)}, "error": str(error)}).encode() + b"\r\n"


def with_network(query: Query) -> list[tuple[str, str]]:
    """The query with the builder's own network for RUN, where it names none.

    The machine is the boundary. For a network of its own dockerd executes itself anew at each step, which takes an
    emulated processor seconds.
    """
    given = [(k, v) for k, v in query if k != "networkmode" or v not in ("", "default")]
    if not any(k == "networkmode" for k, _ in given):
        return [*given, ("networkmode", "host")]
    # BuildKit knows dockerd's bridge as its default only.
    return [(k, "default" if (k, v) == ("networkmode", "bridge") else v) for k, v in given]
