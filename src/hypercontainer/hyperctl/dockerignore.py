# SPDX-License-Identifier: Apache-2.0
"""`.dockerignore`: which files of a directory are no part of a build's context.

The syntax is that of https://docs.docker.com/build/concepts/context/#dockerignore-files: a pattern a line, Go's
path.Match with `**` for any number of directories, `!` for what is not to be left out after all, the last match
decides; what matches a directory matches all that is in it.
"""

from __future__ import annotations

import posixpath
import re

from ..errors import InvalidArgument


class Ignored:
    """The patterns of one file."""

    def __init__(self, text: str) -> None:
        """:raise InvalidArgument: a pattern is malformed."""
        self._patterns: list[tuple[re.Pattern[str], bool]] = []
        self.excepts = False  # something below what is left out may not be left out
        for raw in text.removeprefix("\ufeff").splitlines():
            line = raw.strip()
            if not line or raw.startswith("#"):
                continue
            negated = line.startswith("!")
            pattern = posixpath.normpath(line[1:].strip() if negated else line).lstrip("/")
            if pattern not in ("", "."):
                self._patterns.append((_compiled(pattern), not negated))
                self.excepts |= negated

    def leaves_out(self, path: str) -> bool:
        """Whether a path of the directory, such as `a/b`, is left out."""
        parts = path.split("/")
        ways = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        out = False
        for pattern, leaves in self._patterns:
            if out != leaves and any(pattern.fullmatch(way) for way in ways):
                out = leaves
        return out


def _compiled(pattern: str) -> re.Pattern[str]:
    """:raise InvalidArgument: it is malformed."""
    try:
        return re.compile(_translated(pattern), re.DOTALL)
    except (re.error, IndexError):
        raise InvalidArgument(
            f"invalid pattern {pattern!r} in .dockerignore", hint="see path.Match of Go for the syntax"
        ) from None


def _translated(pattern: str) -> str:
    """As a regular expression. :raise IndexError: it ends in the midst of something."""
    out, at = [], 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if pattern.startswith("**", at - 1):
            at += 1
            at += pattern.startswith("/", at)
            out.append(".*" if at >= len(pattern) else "(?:.*/)?")
        elif character in "*?":
            out.append("[^/]*" if character == "*" else "[^/]")
        elif character == "[":
            end = pattern.index("]", at + 1) if "]" in pattern[at + 1 :] else len(pattern)
            out.append(f"[{pattern[at:end]}{pattern[end]}")
            at = end + 1
        else:
            if character == "\\":
                character = pattern[at]
                at += 1
            out.append(re.escape(character))
    return "".join(out)
