# SPDX-License-Identifier: Apache-2.0
"""Docker's filters: `KEY=VALUE` on the command line, a JSON object of lists over REST."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from ..errors import InvalidArgument
from .moments import read_moment

Filters = dict[str, list[str]]
_SPELLINGS = {"true": True, "1": True, "false": False, "0": False}


def read_filters(given: Iterable[str], known: Collection[str]) -> Filters:
    """From the command line.

    :raise InvalidArgument: one has no value, or nobody knows its key.
    """
    found: Filters = {}
    for text in given:
        key, equals, value = text.partition("=")
        if key.endswith("!"):
            key, value = f"{key[:-1]}", f"!{value}"  # label!=KEY
        if not equals or key not in known:
            raise _invalid(text, known)
        found.setdefault(key, []).append(value)
    return found


def encode_filters(filters: Filters) -> str:
    """For a query; "" for none."""
    return msgspec.json.encode(filters).decode() if filters else ""


def decode_filters(text: str, known: Collection[str]) -> Filters:
    """From a query.

    :raise InvalidArgument: it is none, or has a key that nobody knows.
    """
    if not text:
        return {}
    try:
        found = msgspec.json.decode(text, type=Filters)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidArgument(f"the filters {text[:100]!r} are not understood: {error}") from error
    for key in found:
        if key not in known:
            raise _invalid(key, known)
    return found


def _invalid(text: str, known: Collection[str]) -> InvalidArgument:
    return InvalidArgument(f"invalid filter {text!r}", hint=f"use one of {', '.join(known)}, as KEY=VALUE")


def has_labels(labels: Mapping[str, str], filters: Filters) -> bool:
    """Whether all of `label=` hold: KEY or KEY=VALUE, with a `!` before it for what may not be."""
    for wanted in filters.get("label", []):
        key, equals, value = wanted.removeprefix("!").partition("=")
        held = key in labels and (not equals or labels[key] == value)
        if held == wanted.startswith("!"):
            return False
    return True


def with_unwanted(filters: Filters) -> Filters:
    """Docker's `label!` as `has_labels` takes it."""
    found = {key: values for key, values in filters.items() if key != "label!"}
    if unwanted := filters.get("label!", []):
        found["label"] = [*found.get("label", []), *(f"!{value}" for value in unwanted)]
    return found


def before_until(moment: str, filters: Filters) -> bool:
    """Whether something of this time is older than what `until=` says.

    :raise InvalidArgument: it is no time.
    """
    limits = [read_moment(text) for text in filters.get("until", [])]
    return all(bool(moment) and read_moment(moment) < limit for limit in limits)


def flag(filters: Filters, key: str) -> bool | None:
    """What a filter of yes or no says; None when it is not there.

    :raise InvalidArgument: it is neither.
    """
    if key not in filters:
        return None
    value = filters[key][-1].lower()
    if value not in _SPELLINGS:
        raise InvalidArgument(f"invalid filter '{key}={value}'", hint="give true or false")
    return _SPELLINGS[value]
