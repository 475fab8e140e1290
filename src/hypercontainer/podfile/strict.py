# SPDX-License-Identifier: Apache-2.0
"""Decoding that says which key is wrong, where, and what was probably meant."""

from __future__ import annotations

import difflib
from typing import Any, TypeVar, cast

import msgspec
from msgspec import inspect

from ..errors import InvalidArgument
from ..model.sentences import explain, type_info
from .document import Podfile

T = TypeVar("T")


def decode(raw: Any, type_: type[T] = Podfile, what: str = "podfile") -> T:  # type: ignore[assignment]
    """A plain object as a podfile, or as something else that `what` names in messages.

    :raise InvalidArgument: with the path of what is wrong.
    """
    spelt = raw
    try:
        spelt = _Spelling(what).of(raw, type_info(cast(Any, type_)), "$")
        return msgspec.convert(spelt, type_)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"{what}: {explain(error, spelt, type_)}") from error
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{what}: {error.object!r} is no text", hint="write it in UTF-8") from error


def _where(path: str) -> str:
    return path.removeprefix("$").removeprefix(".") or "the document"


def _fits(value: Any, info: inspect.Type) -> bool:
    """Whether this member of a union is the one for lists, or for mappings, as the value is."""
    return isinstance(info, inspect.ListType if isinstance(value, list) else (inspect.StructType, inspect.DictType))


class _Spelling:
    """Values with their keys as the structures spell them."""

    def __init__(self, what: str) -> None:
        self._what = what

    def of(self, value: Any, info: inspect.Type, path: str) -> Any:
        if isinstance(info, inspect.UnionType):
            meant = next((t for t in info.types if _fits(value, t)), None) if isinstance(value, (dict, list)) else None
            return self.of(value, meant, path) if meant else value
        if isinstance(info, inspect.ListType) and isinstance(value, list):
            return [self.of(v, info.item_type, f"{path}[{i}]") for i, v in enumerate(value)]
        if isinstance(info, inspect.DictType) and isinstance(value, dict):
            return {k: self.of(v, info.value_type, f"{path}.{k}") for k, v in value.items()}
        if isinstance(info, inspect.StructType) and isinstance(value, dict):
            return self._struct(value, info, path)
        if value is None and isinstance(info, (inspect.ListType, inspect.DictType)):
            return [] if isinstance(info, inspect.ListType) else {}  # a key of YAML with nothing below it
        return value

    def _struct(self, value: dict[Any, Any], info: inspect.StructType, path: str) -> dict[str, Any]:
        fields = {f.encode_name.lower(): f for f in info.fields}
        out: dict[str, Any] = {}
        for key, inner in value.items():
            at = _where(f"{path}.{key}")
            known = fields.get(str(key).lower())
            if known is None:
                if str(key).startswith("x-") and "x-" in fields:
                    continue  # an extension of the file's author
                raise InvalidArgument(f"{self._what}: {at}: unknown key", hint=self._hint(str(key), fields))
            if known.encode_name in out:
                raise InvalidArgument(
                    f"{self._what}: {at}: the key is given twice", hint="keys differ by more than case"
                )
            if inner is None and not known.required and not _takes_null(known.type):
                continue  # as if it were not there
            out[known.encode_name] = self.of(inner, known.type, f"{path}.{known.encode_name}")
        return out

    @staticmethod
    def _hint(key: str, fields: dict[str, inspect.Field]) -> str:
        names = [f.encode_name for f in fields.values() if f.encode_name != "x-"]
        close = difflib.get_close_matches(key, names, n=1) or difflib.get_close_matches(key.lower(), fields, n=1)
        return (
            f"did you mean {fields[close[0].lower()].encode_name!r}?"
            if close
            else f"known are {', '.join(sorted(names))}"
        )


def _takes_null(info: inspect.Type) -> bool:
    return isinstance(info, (inspect.AnyType, inspect.ListType, inspect.DictType)) or (
        isinstance(info, inspect.UnionType) and any(isinstance(t, inspect.NoneType) for t in info.types)
    )


def schema() -> dict[str, Any]:
    """The podfile as JSON Schema 2020-12, for editors."""
    found = msgspec.json.schema(Podfile)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://hypercontainer.dev/podfile.schema.json",
        **found,
    }
