# SPDX-License-Identifier: Apache-2.0
"""The functions of templates: Go's text/template, and those that Docker adds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any


class Wrong(Exception):
    """A template that cannot be used; becomes one sentence with the template in it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def lookup(value: Any, path: str) -> Any:
    """A field below a value, by `.A.B`.

    :raise Wrong: there is none of that name.
    """
    for part in filter(None, path.split(".")):
        if value is None:
            return None
        if not isinstance(value, dict):
            raise Wrong(f"{shown(value)[:40]!r} has no field {part!r}")
        match = part if part in value else next((k for k in value if str(k).lower() == part.lower()), None)
        if match is None:
            raise Wrong(f"there is no field {part!r}", hint=f"there are {', '.join(sorted(map(str, value)))}")
        value = value[match]
    return value


def label(labels: Any, key: str) -> str:
    """One of them; in a table's head, where there are none, what Docker writes above it."""
    if isinstance(labels, dict):
        return shown(labels.get(key, ""))
    return re.sub("[-_]", " ", key.rpartition(".")[2])


def shown(value: Any) -> str:
    """As Go prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "map[" + " ".join(f"{k}:{shown(v)}" for k, v in sorted(value.items())) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(map(shown, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def truth(value: Any) -> bool:
    """Go's: what is not empty and not zero."""
    return bool(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif value is None or not isinstance(key, int) or not 0 <= key < len(value):
            raise Wrong(f"index out of range: {shown(key)}")
        else:
            value = value[key]
    return value


def _printf(text: str, *values: Any) -> str:
    left = list(values)

    def one(match: re.Match[str]) -> str:
        if match[2] == "%":
            return "%"
        if not left:
            return f"%!{match[2]}(MISSING)"
        value = left.pop(0)
        if match[2] in "sv":
            return f"%{match[1]}s" % shown(value)
        if match[2] == "q":
            return f"%{match[1]}s" % json.dumps(shown(value), ensure_ascii=False)
        return str(f"%{match[1]}{match[2]}" % value)

    written: str = re.sub(r"%([-+ 0#]*\d*(?:\.\d+)?)([a-zA-Z%])", one, text)
    return written


def _join(values: Any, separator: str) -> str:
    return separator.join(shown(v) for v in values or [])


def _truncate(text: Any, length: int) -> str:
    return shown(text)[:length]


def _pad(text: Any, before: int, after: int) -> str:
    return " " * before + shown(text) + " " * after if text else ""


def _equal(first: Any, *others: Any) -> bool:
    return any(first == other for other in others)


def _first(values: tuple[Any, ...], *, wanted: bool) -> Any:
    return next((v for v in values if truth(v) is wanted), values[-1])


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": _json,
    "join": _join,
    "split": lambda text, separator: shown(text).split(separator),
    "lower": lambda text: shown(text).lower(),
    "upper": lambda text: shown(text).upper(),
    "title": lambda text: re.sub(r"\b\w", lambda m: m[0].upper(), shown(text)),
    "pad": _pad,
    "truncate": _truncate,
    "print": lambda *values: "".join(map(shown, values)),
    "println": lambda *values: " ".join(map(shown, values)) + "\n",
    "printf": _printf,
    "len": lambda value: len(value or ()),
    "index": _index,
    "slice": lambda value, start=0, end=None: value[start:end],
    "eq": _equal,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "and": lambda *values: _first(values, wanted=False),
    "or": lambda *values: _first(values, wanted=True),
    "not": lambda value: not truth(value),
}

# In a table's heads what changes a value leaves the head as it is.
HEAD_FUNCTIONS = FUNCTIONS | {
    name: lambda head, *_: head for name in ("json", "join", "split", "lower", "upper", "title", "pad", "truncate")
}
