# SPDX-License-Identifier: Apache-2.0
"""Go's templates, as far as Docker's `--format` is used: https://docs.docker.com/engine/cli/formatting/

Actions: pipelines, `range`, `if`, `with`, `else`, `end`, variables, comments, `{{-` and `-}}`. Functions are in
`template_functions`. Fields are found whatever their letters' case, since ours are written in camel case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidArgument
from .template_functions import FUNCTIONS, Wrong, label, lookup, shown, truth

_ACTION = re.compile(r"\{\{(-\s)?\s*(/\*.*?\*/|(?:\"(?:\\.|[^\"\\])*\"|`[^`]*`|[^\"`}]|\}(?!\}))*?)\s*(\s-)?\}\}", re.S)
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*"|`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)|(?P<sign>:=|[|(),=])"""
    r"""|(?P<field>(?:\.\w+)+|\.)|(?P<variable>\$\w*)|(?P<word>\w+))"""
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "'": "'"}
_CLOSED = ("range", "if", "with")


@dataclass
class _Scope:
    dot: Any
    variables: dict[str, Any]

    def inner(self, dot: Any) -> _Scope:
        return _Scope(dot, dict(self.variables))


Value = Callable[[_Scope], Any]
Functions = Mapping[str, Callable[..., Any]]


@dataclass
class _Block:
    """What an action with an `end` holds: bodies, the first whose condition holds is taken."""

    verb: str
    value: Value
    names: tuple[str, ...] = ()
    chained: bool = False  # an `else if`, which ends with what it is in
    body: list[_Node] = field(default_factory=list)
    other: list[_Node] = field(default_factory=list)

    def write(self, scope: _Scope) -> Iterator[str]:
        value = self.value(scope)
        if self.verb == "range":
            yield from self._each(value, scope)
            return
        inner = scope.inner(value if self.verb == "with" and truth(value) else scope.dot)
        inner.variables.update(dict.fromkeys(self.names, value))
        for node in self.body if truth(value) else self.other:
            yield from node.write(inner)

    def _each(self, value: Any, scope: _Scope) -> Iterator[str]:
        pairs: list[tuple[Any, Any]] = []
        if isinstance(value, dict):
            pairs = sorted(value.items())
        elif isinstance(value, (list, int)):
            pairs = list(enumerate(range(value) if isinstance(value, int) else value))
        elif value is not None:
            raise Wrong(f"range can't iterate over {shown(value)}")
        for key, item in pairs:
            inner = scope.inner(item)
            inner.variables.update(zip(self.names, (key, item) if len(self.names) == 2 else (item,), strict=False))
            for node in self.body:
                yield from node.write(inner)
        for node in [] if pairs else self.other:
            yield from node.write(scope.inner(scope.dot))


@dataclass
class _Text:
    text: str

    def write(self, _: _Scope) -> Iterator[str]:
        yield self.text


@dataclass
class _Print:
    value: Value
    name: str = ""  # of a variable that it is kept in instead

    def write(self, scope: _Scope) -> Iterator[str]:
        value = self.value(scope)
        if self.name:
            scope.variables[self.name] = value
        else:
            yield shown(value)


_Node = _Text | _Print | _Block


class _Expression:
    """One action's words, read from left to right."""

    def __init__(self, text: str, functions: Functions) -> None:
        self._functions = functions
        self._words: list[tuple[str, str]] = []
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if not match:
                raise Wrong(f"unexpected {text[at:].strip()[:10]!r}")
            self._words.append((match.lastgroup or "", match[match.lastgroup or 0]))
            # A field that touches a parenthesis is of what is in it.
            if match.lastgroup == "field" and at and text[at - 1] == ")" and match[0] == match["field"]:
                self._words[-1] = ("of", match["field"])
            at = match.end()
        self._at = 0

    def names(self) -> tuple[str, ...]:
        """Variables that are declared, and taken off."""
        for count in (1, 3):
            kinds = [w[0] for w in self._words[:count]]
            if self._words[count : count + 1] in ([("sign", ":=")], [("sign", "=")]) and kinds[0] == "variable":
                self._at = count + 1
                return tuple(w[1] for w in self._words[:count] if w[0] == "variable")
        return ()

    def whole(self) -> Value:
        """What is left, to its end."""
        value = self._pipeline()
        if self._at < len(self._words):
            raise Wrong(f"unexpected {self._words[self._at][1]!r}")
        return value

    def _next(self, *kinds: str) -> bool:
        return self._at < len(self._words) and self._words[self._at][0] in kinds

    def _is(self, sign: str) -> bool:
        return self._at < len(self._words) and self._words[self._at] == ("sign", sign)

    def _pipeline(self) -> Value:
        value = self._command(None)
        while self._is("|"):
            self._at += 1
            value = self._command(value)
        return value

    def _command(self, last: Value | None) -> Value:
        """A function with its arguments, the last of which may come from the left; or a value."""
        if not self._next("word") or self._words[self._at][1] in ("true", "false", "nil"):
            if last:
                raise Wrong("a value cannot take what is piped into it")
            value = self._operand()
            return self._of_labels(value) if self._words[self._at - 1][1].endswith(".Label") else value
        name = self._words[self._at][1]
        if (function := self._functions.get(name)) is None:
            raise Wrong(f"function {name!r} is not defined; there are {', '.join(self._functions)}")
        self._at += 1
        arguments: list[Value] = []
        while self._at < len(self._words) and not (self._is("|") or self._is(")")):
            arguments.append(self._operand())
        arguments += [last] if last else []
        return lambda scope: function(*(a(scope) for a in arguments))

    def _of_labels(self, labels: Value) -> Value:
        """`.Label "KEY"`, which is a function of Docker's."""
        if not self._next("string"):
            return labels
        key = self._operand()
        return lambda scope: label(labels(scope), key(scope))

    def _operand(self) -> Value:
        if self._at >= len(self._words):
            raise Wrong("something is missing")
        kind, word = self._words[self._at]
        self._at += 1
        if kind == "sign" and word == "(":
            inner = self._pipeline()
            if not self._is(")"):
                raise Wrong("a parenthesis is not closed")
            self._at += 1
            return self._fields(inner)
        if kind == "word" and (function := self._functions.get(word)):
            return lambda _: function()
        if kind not in ("string", "number", "field", "variable", "word"):
            raise Wrong(f"unexpected {word!r}")
        return self._fields(_variable(word)) if kind == "variable" else _plain(kind, word)

    def _fields(self, value: Value) -> Value:
        kinds = ("of", "field") if self._words[self._at - 1][0] == "variable" else ("of",)
        if not self._next(*kinds):
            return value
        path = self._words[self._at][1]
        self._at += 1
        return lambda scope: lookup(value(scope), path)


def _variable(name: str) -> Value:
    def value(scope: _Scope) -> Any:
        if name not in scope.variables:
            raise Wrong(f"undefined variable {name!r}")
        return scope.variables[name]

    return value


def _plain(kind: str, word: str) -> Value:
    if kind == "field":
        return lambda scope: lookup(scope.dot, word)
    constant: Any
    if kind == "string":
        inner = word[1:-1]
        constant = inner if word[0] == "`" else re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), inner)
    elif kind == "number":
        constant = float(word) if "." in word else int(word)
    else:
        if word not in ("true", "false", "nil"):
            raise Wrong(f"unexpected {word!r}")
        constant = {"true": True, "false": False, "nil": None}[word]
    return lambda _: constant


def parse(template: str, functions: Functions = FUNCTIONS) -> Callable[[Any], str]:
    """What writes a document by the template.

    :raise InvalidArgument: it is none that is understood; what is given back raises it for a field that is not there.
    """
    try:
        nodes = _Parser(functions).parse(template.replace("\\t", "\t").replace("\\n", "\n"))
    except Wrong as error:
        raise _refused(template, error) from None

    def write(document: Any) -> str:
        scope = _Scope(document, {"$": document})
        try:
            return "".join(piece for node in nodes for piece in node.write(scope))
        except Wrong as error:
            raise _refused(template, error) from None
        except (TypeError, ValueError, LookupError, RecursionError) as error:
            raise _refused(template, Wrong(str(error))) from None

    return write


def _refused(template: str, error: Wrong) -> InvalidArgument:
    return InvalidArgument(
        f"template {template!r} is not understood: {error}", hint=error.hint or "see docs.docker.com on formatting"
    )


class _Parser:
    """Actions, one after the other: they add to the list that is filled, open or close one."""

    def __init__(self, functions: Functions) -> None:
        self._functions = functions
        self._top: list[_Node] = []
        self._into, self._open = [self._top], list[_Block]()

    def parse(self, template: str) -> list[_Node]:
        """:raise Wrong: it is no template."""
        at, trim = 0, False
        for match in [*_ACTION.finditer(template), None]:
            text = template[at : match.start() if match else len(template)]
            if "{{" in text:
                raise Wrong("an action is not closed")
            text = text.lstrip() if trim else text
            self._into[-1].append(_Text(text.rstrip() if match and match[1] else text))
            if match:
                self._take(match[2])
                at, trim = match.end(), bool(match[3])
        if self._open:
            raise Wrong(f"{self._open[-1].verb} has no end")
        return self._top

    def _take(self, action: str) -> None:
        verb, _, rest = action.partition(" ")
        if action.startswith("/*"):
            return
        if verb in ("else", "end") and not self._open:
            raise Wrong(f"unexpected {verb}")
        if verb == "end":
            chained = True
            while chained:
                chained = self._open.pop().chained
                self._into.pop()
        elif verb == "else":
            self._into[-1] = self._open[-1].other
            if rest.strip():
                self._begin(rest.strip(), chained=True)
        elif verb in _CLOSED:
            self._begin(action)
        else:
            words = _Expression(action, self._functions)
            names = words.names()
            self._into[-1].append(_Print(words.whole(), names[0] if names else ""))

    def _begin(self, action: str, *, chained: bool = False) -> None:
        verb, _, rest = action.partition(" ")
        if verb not in _CLOSED:
            raise Wrong(f"unexpected {verb!r}")
        words = _Expression(rest, self._functions)
        names = words.names()
        block = _Block(verb, words.whole(), names, chained)
        self._into[-1].append(block)
        self._open.append(block)
        self._into.append(block.body)
