# SPDX-License-Identifier: Apache-2.0
"""The detach keys are taken out of what is typed."""

from __future__ import annotations


class DetachFilter:
    """Holds back what may become the keys, and passes it on when it does not."""

    def __init__(self, keys: bytes) -> None:
        self.detached = False
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What the process gets of it; nothing after the keys."""
        out = bytearray()
        for byte in data:
            if self.detached:
                break
            self._held += bytes([byte])
            while not self._keys.startswith(self._held):
                out.append(self._held[0])
                self._held = self._held[1:]
            self.detached = self._held == self._keys
        return bytes(out)

    def end(self) -> bytes:
        """No more is typed: what was held back was no sequence."""
        held, self._held = self._held, b""
        return b"" if self.detached else held
