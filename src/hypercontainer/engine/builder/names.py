# SPDX-License-Identifier: Apache-2.0
"""Which images a build begins with: their names, found in what its client sends.

BuildKit reads the Dockerfile itself, and asks nobody before it looks for an image: among those of its own engine
first, then in a registry. So that it finds those of our store, hyperd looks for `FROM NAME`, `--from=NAME`,
`from=NAME`, values of ARG and of build arguments in the bytes that pass by, whatever carries them (a tar, the frames
of a session), and has these images there before the bytes go on. A name too many costs a look into the store; a
Dockerfile that comes compressed, or makes names of several arguments, has its images from a registry.
"""

from __future__ import annotations

import re

_NAME = rb"([A-Za-z0-9][A-Za-z0-9._/:@-]{0,254})"
# No word needs to end before them: a message has a length there, which may be a letter.
_TEXT = rb"(?i:FROM[ \t]+(?:--platform=\S+[ \t]+)?|from=|ARG[ \t]+\w+=[\"']?)" + _NAME
# A build argument in a session: two texts of a message (protobuf), with a byte of the second one's length before it.
_ARGUMENT = rb"build-arg:\w+\x12[\x01-\x7f]" + _NAME
_WHERE = re.compile(_TEXT + rb"|" + _ARGUMENT)
_OVERLAP = 512  # bytes that a match may have before the end of a piece
_MOST = 1000  # names of one stream that are looked up: what is behind them, a builder gets from registries


class NameFinder:
    """Looks through one stream."""

    def __init__(self) -> None:
        self._tail = b""
        self.seen: set[str] = set()

    def feed(self, data: bytes) -> list[str]:
        """What may be names of images, that have not been told yet."""
        text = self._tail + data
        self._tail = text[-_OVERLAP:]
        found = []
        for match in _WHERE.finditer(text):
            name = (match.group(1) or match.group(2)).decode()
            if name not in self.seen and len(self.seen) < _MOST:
                self.seen.add(name)
                found.append(name)
        return found
