# SPDX-License-Identifier: Apache-2.0
"""msgspec's messages as sentences for a person: which field, and what it must be."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import inspect

_UNKNOWN = object()  # the value is not at hand
_SHOWN_MAX = 60  # characters of a value
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_KINDS = {
    "int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "array": "a list",
    "object": "a mapping", "null": "nothing", "bytes": "bytes in base64", "datetime": "a date and time",
    "date": "a date",
    "time": "a time of day", "timedelta": "a duration", "duration": "a duration", "uuid": "a UUID",
    "decimal": "a number",
}  # fmt: skip
_BOUNDS = {">=": "of at least", ">": "above", "<=": "of at most", "<": "below"}
_UNITS = {"str": "characters", "bytes": "bytes", "array": "entries", "object": "entries"}
_ONE = {"characters": "character", "bytes": "byte", "entries": "entry"}
_TYPE, _NUMBER = r"`([^`]+)`", r"(-?[\d.e+-]+)"


def _kinds(names: str) -> str:
    """`a whole number or text`, of `int | str`; what may be left out is not worth a word."""
    known = [_KINDS.get(n, n) for n in names.split(" | ")]
    return " or ".join([k for k in known if k != _KINDS["null"]] or known)


def _length(kind: str, bound: str, count: str) -> str:
    at = {">=": "at least", "<=": "at most", "": "exactly"}[bound]
    units = _UNITS.get(kind, "entries")
    return f"must have {at} {count} {_ONE[units] if count == '1' else units}"


# Message -> sentence, and whether the value belongs to it; all kinds of msgspec 0.18 and later
# (`ms_raise_validation_error` and its callers in _core.c). More special ones are first.
_TABLE: list[tuple[re.Pattern[str], Callable[..., str], bool]] = [
    (re.compile(pattern), sentence, shown)
    for pattern, sentence, shown in (
        (rf"Expected {_TYPE} of length (>=|<=) (\d+)", _length, True),
        (rf"Expected {_TYPE} of at least length (\d+)(?:, got \d+)?", lambda t, n: _length(t, ">=", n), True),
        (rf"Expected {_TYPE} of at most length (\d+)(?:, got \d+)?", lambda t, n: _length(t, "<=", n), True),
        (rf"Expected {_TYPE} of length (\d+)(?:, got \d+)?", lambda t, n: _length(t, "", n), True),
        (rf"Expected {_TYPE} of length (\d+) to (\d+)(?:, got \d+)?",
         lambda t, a, b: f"must have {a} to {b} {_UNITS.get(t, 'entries')}", True),
        (rf"Expected {_TYPE} matching regex '(.*)'", lambda _, r: f"must have the form {r}", True),
        (rf"Expected {_TYPE} that's a multiple of {_NUMBER}",
         lambda t, n: f"must be {_kinds(t)}, a multiple of {n}", True),
        (rf"Expected {_TYPE} (>=|<=|>|<) {_NUMBER}",
         lambda t, b, n: f"must be {_kinds(t)} {_BOUNDS[b]} {n.removesuffix('.0')}", True),
        (rf"Expected {_TYPE} with (a|no) timezone component",
         lambda t, a: f"must be {_kinds(t)} with {a} time zone", True),
        (rf"Expected {_TYPE}, got `?([^`]+)`?", lambda t, got: f"must be {_kinds(t)}", True),
        (rf"Expected {_TYPE}", lambda t: f"must be {_kinds(t)}", True),
        (r"Object contains unknown field `(.*)`", lambda name: f"unknown key {name!r}", False),
        (r"Object missing required field `(.*)`", lambda name: f"{name!r} is missing", False),
        (r"Invalid enum value (.*)", lambda value: f"{value} is not one of the values that it may have", False),
        (r"Invalid value (.*)", lambda value: f"{value} is not one of the values that it may have", False),
        (r"(?:Integer value|Number|Timestamp is|Duration is)(?: is)? out of range ?",
         lambda: "is too large or too small", True),
        (r"Invalid base64 encoded string", lambda: "must be base64", True),
        (r"Invalid RFC3339 encoded (datetime|date|time)",
         lambda t: f"must be {_KINDS[t]} as in 2026-01-31T12:00:00Z", True),
        (r"Invalid (UUID)(?: bytes)?", lambda _: "must be a UUID", True),
        (r"Invalid ISO8601 duration", lambda: "must be a duration as in PT1H30M", True),
        (r"Invalid decimal string", lambda: "must be a number", True),
        (r"Invalid epoch timestamp", lambda: "must be a date and time", True),
    )
]  # fmt: skip


def explain(error: Exception, raw: Any = _UNKNOWN, type_: Any = None) -> str:
    """`spec.retries: must be a whole number of at least 1, not 0`.

    `raw` is the document that was refused, of which the value is taken; `type_` what it should have been, of which
    the values are taken that a word may have.
    """
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if not isinstance(error, msgspec.ValidationError):
        return f"no JSON: {_lower(str(error).removeprefix('JSON is malformed: '))}"
    message, _, path = str(error).rpartition(" - at ") if " - at " in str(error) else (str(error), "", "")
    of_key = "`key` in " if path.startswith("`key") else ""
    path = path.removeprefix(of_key).strip("`").removeprefix("$")
    where = path.removeprefix(".") or "the document"
    value = _UNKNOWN if of_key else _found(raw, path)
    return f"{'a key of ' if of_key else ''}{where}: {_sentence(message, value, [] if of_key else _words(type_, path))}"


def _sentence(message: str, value: Any, words: list[str]) -> str:
    for pattern, sentence, shown in _TABLE:
        if match := pattern.fullmatch(message):
            if words and message.startswith("Invalid"):
                return f"{match[1]} is none of {', '.join(words)}"
            return sentence(*match.groups()) + (_but(value) if shown else "")
    return _lower(message)  # a check of our own, or one that msgspec did not have yet


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _but(value: Any) -> str:
    """`, not 0`; nothing where the value is not at hand."""
    if value is _UNKNOWN:
        return ""
    if isinstance(value, (dict, list)) and value:
        return f", not a {'mapping' if isinstance(value, dict) else f'list of {len(value)}'}"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    if value is None:
        text = "nothing"
    return ", not " + (text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…")


def _steps(path: str) -> list[str]:
    return [m[1] or m[2] for m in _STEP.finditer(path)]


def _found(raw: Any, path: str) -> Any:
    """What is at the path; unknown where the path does not say which of a mapping's values it is."""
    for step in _steps(path):
        if isinstance(raw, dict) and step in raw:
            raw = raw[step]
        elif isinstance(raw, (list, tuple)) and step.isdecimal() and int(step) < len(raw):
            raw = raw[int(step)]
        else:
            return _UNKNOWN
    return raw


@functools.cache
def type_info(type_: Any) -> inspect.Type:
    """A podfile's takes 20 ms to find out."""
    return inspect.type_info(type_)


def _words(type_: Any, path: str) -> list[str]:
    """The values of the enumeration at the path."""
    if type_ is None:
        return []
    found = [type_info(type_)]
    for step in _steps(path):
        found = [inner for info in found for inner in _inside(info, step)]
    words: list[str] = []
    for info in _members(found):
        if isinstance(info, inspect.LiteralType):
            words += [repr(v) if v == "" else str(v) for v in info.values]
        elif isinstance(info, inspect.EnumType):
            words += [str(v.value) for v in info.cls]
    return words


def _members(found: list[inspect.Type]) -> list[inspect.Type]:
    plain = [i.type if isinstance(i, inspect.Metadata) else i for i in found]
    return [t for i in plain for t in (_members(list(i.types)) if isinstance(i, inspect.UnionType) else [i])]


def _inside(info: inspect.Type, step: str) -> list[inspect.Type]:
    out: list[inspect.Type] = []
    for member in _members([info]):
        if isinstance(member, inspect.StructType):
            out += [f.type for f in member.fields if f.encode_name == step]
        elif isinstance(member, inspect.DictType):
            out.append(member.value_type)
        elif isinstance(member, inspect.ListType):
            out.append(member.item_type)
    return out
