# SPDX-License-Identifier: Apache-2.0
"""Values of the configuration that are written as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..errors import InvalidArgument

V = TypeVar("V")


def value(key: str, text: str, parse: Callable[[str], V]) -> V:
    """What it means. :raise InvalidArgument: naming the key: it means nothing."""
    try:
        return parse(text)
    except InvalidArgument as error:
        raise InvalidArgument(f"{key}: {error.message}", hint=error.hint) from error
