# SPDX-License-Identifier: Apache-2.0
"""Variables of a compose file: `${NAME:-default}` in it, and files of NAME=VALUE.

https://github.com/compose-spec/compose-spec/blob/main/12-interpolation.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-?+]")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$$"}
_DEPTH = 20  # of defaults in defaults


def interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    """`$NAME`, `${NAME:-default}` and the like in all texts of a document.

    :raise InvalidArgument: a variable that must be set and is not, or `$` before something else.
    """
    if isinstance(value, dict):
        return {k: interpolate(v, variables) for k, v in value.items()}
    if isinstance(value, list):
        return [interpolate(v, variables) for v in value]
    return expand(value, variables) if isinstance(value, str) else value


def expand(text: str, variables: Mapping[str, str], depth: int = 0) -> str:
    """One text; see `interpolate`."""
    out, at = "", 0
    while (dollar := text.find("$", at)) >= 0:
        out, at = out + text[at:dollar], dollar + 1
        if text[at : at + 1] == "$":
            out, at = out + "$", at + 1
        elif match := _NAME.match(text, at):
            out, at = out + variables.get(match[0], ""), match.end()
        elif text[at : at + 1] == "{":
            end = _closing(text, at)
            out, at = out + _braced(text[at + 1 : end], variables, depth), end + 1
        else:
            raise InvalidArgument(f"invalid $ in {text[:60]!r}", hint="write $$ for a dollar sign")
    return out + text[at:]


def _closing(text: str, at: int) -> int:
    level = 0
    for index in range(at, len(text)):
        level += (
            {"{": 1, "}": -1}.get(text[index], 0) if text[index] == "}" or text[index - 1 : index + 1] == "${" else 0
        )
        if level == 0:
            return index
    raise InvalidArgument(f"a ${{ without its }} in {text[:60]!r}", hint="close it, or write $$ for a dollar sign")


def _braced(inner: str, variables: Mapping[str, str], depth: int) -> str:
    match = _NAME.match(inner)
    operator = _OPERATOR.match(inner, match.end()) if match else None
    if match is None or depth > _DEPTH or (operator is None and match.end() != len(inner)):
        raise InvalidArgument(
            f"invalid variable ${{{inner[:60]}}}", hint="write ${NAME}, ${NAME:-default} or ${NAME:?message}"
        )
    name, value = match[0], variables.get(match[0])
    if operator is None:
        return value or ""
    kind, word = operator[0], inner[operator.end() :]
    present = bool(value) if kind.startswith(":") else value is not None
    if kind.endswith("+"):
        return expand(word, variables, depth + 1) if present else ""
    if present:
        return value or ""
    if kind.endswith("?"):
        raise InvalidArgument(f"the variable {name} is not set: {word}", hint="set it in the environment")
    return expand(word, variables, depth + 1)


def read_file(path: Path, variables: Mapping[str, str], *, raw: bool = False) -> dict[str, str]:
    """A file of NAME=VALUE; a bare name takes its value from `variables`. `raw` takes values as they are.

    :raise InvalidArgument: when it cannot be read, or a line is malformed.
    """
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        raise InvalidArgument(
            f"cannot read the env file {path}: {getattr(error, 'strerror', None) or error}", hint="check the path"
        ) from error
    found: dict[str, str] = {}
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.removeprefix("export ").partition("=")
        name, value = name.strip(), value.strip()
        if not name or any(c.isspace() for c in name):
            raise InvalidArgument(f"{path}, line {number}: {line[:40]!r} is no NAME=VALUE", hint="correct it")
        if not equals:
            if name in variables:
                found[name] = variables[name]
            continue
        while value[:1] in ("'", '"') and not raw and _end_of_quote(value) < 0:  # it goes on in the next line
            try:
                value += "\n" + next(lines)[1]
            except StopIteration:
                raise InvalidArgument(f"{path}, line {number}: a quote is not closed", hint="close it") from None
        found[name] = value if raw else _value(value, {**variables, **found})
    return found


def _end_of_quote(value: str) -> int:
    at = 1
    while at < len(value):
        if value[at] == "\\" and value[0] == '"':
            at += 1
        elif value[at] == value[0]:
            return at
        at += 1
    return -1


def _value(text: str, variables: Mapping[str, str]) -> str:
    if text[:1] == "'":
        return text[1 : _end_of_quote(text)]
    if text[:1] == '"':
        inner = text[1 : _end_of_quote(text)]
        return expand(re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), inner), variables)
    return expand(re.split(r"\s+#", text, maxsplit=1)[0].rstrip(), variables)
