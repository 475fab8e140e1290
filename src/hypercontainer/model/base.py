# SPDX-License-Identifier: Apache-2.0
"""The base of everything that travels over REST or rests in the database."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from ..errors import InvalidArgument
from .sentences import explain


class Model(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Immutable, strict about unknown keys, camelCase in JSON."""


M = TypeVar("M", bound=msgspec.Struct)


def given_fields(change: Model) -> dict[str, Any]:
    """What is set of a change, in which the rest is UNSET: by the fields' names."""
    return {f: v for f in change.__struct_fields__ if (v := getattr(change, f)) is not msgspec.UNSET}


def encode(value: msgspec.Struct) -> bytes:
    """JSON that can be read back as what it is.

    A structure built in Python is not looked at by msgspec: a value that its
    type forbids would be written, and refused when it is read.

    :raise InvalidArgument: naming the field.
    """
    try:
        document = msgspec.json.encode(value)
        msgspec.json.decode(document, type=type(value))
    except msgspec.ValidationError as error:
        raise InvalidArgument(explain(error, msgspec.json.decode(document), type(value))) from error
    except (UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise InvalidArgument(f"a {type(value).__name__} cannot be written as JSON: {error}") from error
    return document
