# SPDX-License-Identifier: Apache-2.0
"""Identifiers, generated names, times."""

from __future__ import annotations

import secrets

_LEFT = [
    "brisk",
    "calm",
    "clever",
    "deft",
    "eager",
    "fair",
    "fleet",
    "gentle",
    "glad",
    "keen",
    "lucid",
    "merry",
    "neat",
    "nimble",
    "patient",
    "quiet",
    "rapid",
    "ready",
    "serene",
    "sharp",
    "silent",
    "sincere",
    "solid",
    "spry",
    "steady",
    "sunny",
    "swift",
    "tidy",
    "vivid",
    "warm",
    "wise",
    "witty",
]
_RIGHT = [
    "allen",
    "babbage",
    "boole",
    "church",
    "conway",
    "corbato",
    "dijkstra",
    "engelbart",
    "floyd",
    "goldberg",
    "hamilton",
    "hoare",
    "holberton",
    "hopper",
    "jones",
    "kay",
    "kernighan",
    "knuth",
    "lamport",
    "liskov",
    "lovelace",
    "mccarthy",
    "naur",
    "perlis",
    "ritchie",
    "shannon",
    "thompson",
    "torvalds",
    "turing",
    "wilkes",
    "wirth",
    "zuse",
]


def new_id() -> str:
    """64 hexadecimal digits, as Docker's."""
    return secrets.token_hex(32)


def new_name() -> str:
    return f"{secrets.choice(_LEFT)}_{secrets.choice(_RIGHT)}"


def short(id_: str) -> str:
    return id_.removeprefix("sha256:")[:12]
