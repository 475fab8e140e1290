# SPDX-License-Identifier: Apache-2.0
"""Decoding that says which key is wrong, where, and what was probably meant."""

from __future__ import annotations

import difflib
from typing import Any, TypeVar

import msgspec

from ..errors import InvalidArgument
from ..model.base import explain
from .document import Podfile

T = TypeVar("T")


def decode(raw: Any, type_: type[T] = Podfile) -> T:  # type: ignore[assignment]
    """A plain object as a podfile, or a part of one.

    :raise InvalidArgument: with the path of what is wrong.
    """
    try:
        return msgspec.convert(_spelt(raw, msgspec.inspect.type_info(type_), "$"), type_)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"podfile: {explain(error)}") from error
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"podfile: {error.object!r} is no text", hint="write it in UTF-8") from error


def _where(path: str) -> str:
    return path.removeprefix("$").removeprefix(".") or "the document"


def _spelt(value: Any, info: msgspec.inspect.Type, path: str) -> Any:
    """The value with its keys as the structures spell them."""
    if isinstance(info, msgspec.inspect.UnionType):
        structured = [t for t in info.types if isinstance(t, (msgspec.inspect.StructType, msgspec.inspect.ListType))]
        return _spelt(value, structured[0], path) if structured and value is not None else value
    if isinstance(info, msgspec.inspect.ListType) and isinstance(value, list):
        return [_spelt(v, info.item_type, f"{path}[{i}]") for i, v in enumerate(value)]
    if isinstance(info, msgspec.inspect.StructType) and isinstance(value, dict):
        return _spelt_struct(value, info, path)
    if value is None and isinstance(info, (msgspec.inspect.ListType, msgspec.inspect.DictType)):
        return [] if isinstance(info, msgspec.inspect.ListType) else {}  # a key of YAML with nothing below it
    return value


def _spelt_struct(value: dict[Any, Any], info: msgspec.inspect.StructType, path: str) -> dict[str, Any]:
    fields = {f.encode_name.lower(): f for f in info.fields}
    out: dict[str, Any] = {}
    for key, inner in value.items():
        known = fields.get(str(key).lower())
        if known is None:
            names = [f.encode_name for f in info.fields]
            close = difflib.get_close_matches(str(key), names, n=1) or difflib.get_close_matches(str(key).lower(), fields, n=1)
            meant = fields[close[0].lower()].encode_name if close else ""
            hint = f"did you mean {meant!r}?" if meant else f"known are {', '.join(sorted(names))}"
            raise InvalidArgument(f"podfile: {_where(f'{path}.{key}')}: unknown key", hint=hint)
        if known.encode_name in out:
            raise InvalidArgument(f"podfile: {_where(f'{path}.{key}')}: the key is given twice", hint="keys differ by more than case")
        out[known.encode_name] = _spelt(inner, known.type, f"{path}.{known.encode_name}")
    return out


def schema() -> dict[str, Any]:
    """The podfile as JSON Schema 2020-12, for editors."""
    found = msgspec.json.schema(Podfile)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://hypercontainer.dev/podfile.schema.json", **found}
