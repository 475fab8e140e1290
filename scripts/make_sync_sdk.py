# SPDX-License-Identifier: Apache-2.0
"""`python scripts/make_sync_sdk.py`: `hypercontainer.sdk.sync` of the SDK's asynchronous classes; `make sync-sdk`.

One class of each: the same methods, arguments and words, without `async`, over the loop of `sdk/portal.py`.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SDK = Path(__file__).parents[1] / "src/hypercontainer/sdk"
MODULES = ("connection", "files", "interpreter", "process", "processes", "sandbox", "watch")
_HEAD = '''# SPDX-License-Identifier: Apache-2.0
"""Made of `sdk/{module}.py` by scripts/make_sync_sdk.py: change that, and run it."""

from __future__ import annotations

'''
_SPECIAL = {"__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def plain(text: str) -> str:
    """Names and types without `Async`."""
    return re.sub(r"\bAsync(?=[A-Z])", "", text)


class Module:
    """One of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tree = ast.parse((SDK / f"{name}.py").read_text())
        self.constants = {
            node.targets[0].id: node.value
            for node in self.tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }

    def source(self) -> str:
        """The synchronous module."""
        kinds = [n for n in self.tree.body if isinstance(n, ast.ClassDef) and n.name.startswith("Async")]
        body = "\n\n".join(self._class(kind) for kind in kinds)
        return f"{_HEAD.format(module=self.name)}{self._imports(body)}\n\n{body}\n"

    def _imports(self, body: str) -> str:
        """Those of the module whose names are used; what it names of the SDK is a step further away."""
        used = set(re.findall(r"\w+", body))
        lines = ["from ..portal import call, iterate, run"]
        for node in self.tree.body:
            if isinstance(node, ast.Import):
                lines += [f"import {a.name}" for a in node.names if a.name in used]
            elif isinstance(node, ast.ImportFrom):
                dots = "." * (node.level + 1 if node.level else 0)
                for alias in node.names:
                    lines += [f"from {dots}{node.module or ''} import {alias.name}"] if alias.name in used else []
                    if alias.name.startswith("Async") and plain(alias.name) in used and node.level:
                        lines.append(f"from .{node.module} import {plain(alias.name)}")
        lines += [f"from ..{self.name} import {n}" for n in sorted(set(re.findall(r"\bAsync[A-Z]\w+", body)))
                  if any(isinstance(k, ast.ClassDef) and k.name == n for k in self.tree.body)]  # fmt: skip
        lines += ["from collections.abc import Iterator"] if "Iterator" in used else []
        return "\n".join(lines)

    def _class(self, kind: ast.ClassDef) -> str:
        name = plain(kind.name)
        head = f'class {name}:\n    """{plain(ast.get_docstring(kind, clean=False) or "")}"""\n'
        made = f"    def __init__(self, wrapped: {kind.name}) -> None:\n        self._wrapped = wrapped\n"
        return "\n".join([head, made, *self._methods(kind)])

    def _methods(self, kind: ast.ClassDef) -> Iterator[str]:
        for node in kind.body:
            if isinstance(node, Function) and (node.name[0] != "_" or node.name in _SPECIAL):
                yield self._method(kind.name, node)

    def _method(self, kind: str, node: Function) -> str:
        decorators = [ast.unparse(d) for d in node.decorator_list]
        name = _SPECIAL.get(node.name, node.name)
        text = ast.get_docstring(node, clean=False)
        lines = [*(f"@{d}" for d in decorators), f"def {name}({self._arguments(node)}) -> {self._returned(node)}:"]
        lines += [f'    """{text.rstrip()}{chr(10) + "        " if chr(10) in text else ""}"""'] if text else []
        lines.append(f"    {self._body(kind, node, decorators)}")
        return "\n".join(f"    {line}" for line in lines) + "\n"

    def _arguments(self, node: Function) -> str:
        class Inline(ast.NodeTransformer):
            """Constants of the module by their values."""

            def __init__(self, constants: dict[str, ast.expr]) -> None:
                self.constants = constants

            def visit_Name(self, name: ast.Name) -> ast.expr:
                return self.constants.get(name.id, name)

        inline = Inline(self.constants)
        found = node.args
        found.kw_defaults = [inline.visit(d) if d else None for d in found.kw_defaults]
        return plain(ast.unparse(found))

    @staticmethod
    def _returned(node: Function) -> str:
        return plain(ast.unparse(node.returns).replace("AsyncIterator", "Iterator")) if node.returns else "None"

    def _body(self, kind: str, node: Function, decorators: list[str]) -> str:
        returned = ast.unparse(node.returns) if node.returns else "None"
        if node.name == "__aenter__":
            return "return self"
        if node.name == "close":
            return "call(self._wrapped.close)"
        target = f"{kind}.{node.name}" if "classmethod" in decorators else f"self._wrapped.{node.name}"
        call = target if "property" in decorators else f"{target}({_passed(node)})"
        if returned.startswith("AsyncIterator"):
            return f"return iterate({call})"
        call = f"run({call})" if isinstance(node, ast.AsyncFunctionDef) else call
        if several := re.fullmatch(r"builtins\.list\[(Async\w+)\]", returned):
            return f"return [{plain(several[1])}(each) for each in {call}]"
        if re.fullmatch(r"Async\w+", returned):
            return f"return {plain(returned)}({call})"
        return call if returned == "None" else f"return {call}"


def _passed(node: Function) -> str:
    """The arguments, handed on."""
    names = [a.arg for a in node.args.args if a.arg not in ("self", "cls")]
    return ", ".join([*names, *(f"{a.arg}={a.arg}" for a in node.args.kwonlyargs)])


def made(module: str) -> str:
    """A synchronous module as it is to be."""
    source, ruff = Module(module).source(), Path(sys.executable).parent / "ruff"
    for args in (["check", "--fix", "--quiet", "--select", "I,F401"], ["format", "--quiet"]):
        command = [ruff, *args, "--stdin-filename", SDK / "sync" / f"{module}.py", "-"]
        source = subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout
    return source


def main() -> None:
    """Write them all."""
    for module in MODULES:
        (SDK / "sync" / f"{module}.py").write_text(made(module))


if __name__ == "__main__":
    main()
