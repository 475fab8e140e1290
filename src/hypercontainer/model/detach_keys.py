# SPDX-License-Identifier: Apache-2.0
"""The keys that detach a terminal, as Docker writes them: `ctrl-p,ctrl-q`, `a,b`.

The forms are those of moby's `term.ToBytes`: an ASCII character, or `ctrl-` with a letter or one of `@[\\]^_`.
"""

from __future__ import annotations

from ..errors import InvalidArgument

DETACH_KEYS = b"\x10\x11"  # ctrl-p ctrl-q


def parse_detach_keys(text: str) -> bytes:
    """What a terminal sends for them; the usual keys for "".

    :raise InvalidArgument: what is no key.
    """
    out = b""
    for key in text.split(",") if text else ():
        name = key.removeprefix("ctrl-")
        if len(key) == 1 and key.isascii():
            out += key.encode()
        elif key != name and len(name) == 1 and ((name.isascii() and name.isalpha()) or name in "@[\\]^_"):
            out += bytes([ord(name.upper()) & 0x1F])
        else:
            raise InvalidArgument(f"invalid detach keys {text!r}", hint="write them as ctrl-p,ctrl-q or a,b")
    return out or DETACH_KEYS
