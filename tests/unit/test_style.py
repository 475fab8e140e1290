# SPDX-License-Identifier: Apache-2.0
"""The rules of this code base, as tests: linters, types, layers, budgets."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

MODULE_LIMIT, FUNCTION_LIMIT = 400, 60  # lines; 250 and 30 are aimed at
C_FUNCTION_LIMIT = 80
C_PROGRAMS = ("hyperstart", "hyperjail", "hyperbuilder")
LINE_LIMIT = 120  # columns
COLLABORATORS = 6  # that a class of the engine is given


def run(*args: str | Path, cwd: Path) -> None:
    done = subprocess.run([str(a) for a in args], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def tool(name: str) -> Path:
    return Path(sys.executable).parent / name


def test_ruff(repository: Path) -> None:
    run(
        tool("ruff"),
        "check",
        "src",
        "tests",
        "bench",
        "hyperstart",
        "hyperkernel",
        "hyperbuilder",
        "scripts",
        cwd=repository,
    )
    run(
        tool("ruff"),
        "format",
        "--check",
        "src",
        "tests",
        "bench",
        "hyperstart",
        "hyperkernel",
        "hyperbuilder",
        "scripts",
        cwd=repository,
    )


def test_mypy(repository: Path) -> None:
    run(tool("mypy"), cwd=repository)


def test_layers(repository: Path) -> None:
    run(tool("lint-imports"), cwd=repository)


def test_clang_format(repository: Path) -> None:
    patterns = ("src/*.[ch]", "filter/*.c", "include/*.h", "tests/*.c")
    for program in C_PROGRAMS:
        sources = [p for pattern in patterns for p in (repository / program).glob(pattern)]
        run("clang-format", "--dry-run", "--Werror", *sources, cwd=repository / program)


def sources(repository: Path) -> list[Path]:
    return sorted(
        p for d in ("src", "bench", "hyperkernel", "hyperbuilder", "hyperstart") for p in (repository / d).rglob("*.py")
    )


@functools.cache
def tree(path: Path) -> ast.Module:
    """Parsed once for all tests."""
    return ast.parse(path.read_text())


def test_budgets(repository: Path) -> None:
    over = []
    for path in sources(repository):
        text = path.read_text()
        if len(text.splitlines()) > MODULE_LIMIT:
            over.append(f"{path}: {len(text.splitlines())} lines")
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > FUNCTION_LIMIT:
                    over.append(f"{path}:{node.lineno} {node.name}: {length} lines")
    assert over == []


def test_no_class_of_the_engine_needs_many_others(repository: Path) -> None:
    """Who takes more has more than one thing to do. Records, whose constructors are made by `dataclass`, are none."""
    over = []
    for path in sorted((repository / "src/hypercontainer/engine").rglob("*.py")):
        for kind in [n for n in ast.walk(tree(path)) if isinstance(n, ast.ClassDef)]:
            for node in [n for n in kind.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]:
                given = [a.arg for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]][1:]
                if len(given) > COLLABORATORS or node.args.vararg or node.args.kwarg:
                    over.append(f"{path.name} {kind.name}: {', '.join(given)}")
    assert over == []


# Packages that have a loop: it is their clock (docs/adr/0009). Workers and threads of `images` have none.
BY_THE_CLOCK = ("engine", "guest", "state", "api", "network", "volumes", "hypervisor")
OTHER_CLOCKS = {
    "time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter", "time.sleep",
    "datetime.now", "datetime.utcnow", "datetime.today", "date.today",
}  # fmt: skip


def test_there_is_one_clock(repository: Path) -> None:
    found = [
        f"{path.relative_to(repository)}:{node.lineno} {ast.unparse(node)}"
        for package in BY_THE_CLOCK
        for path in sorted((repository / "src/hypercontainer" / package).rglob("*.py"))
        for node in ast.walk(tree(path))
        if (isinstance(node, ast.Attribute) and ast.unparse(node) in OTHER_CLOCKS)
        or (isinstance(node, ast.ImportFrom) and node.module == "time")
    ]
    assert found == []


def test_no_line_is_longer_than_the_screen(repository: Path) -> None:
    """120 columns; ruff looks at Python, and lets a line be that is one long word."""
    tracked = subprocess.run(
        ["git", "ls-files", "*.py", "hyperstart/*.[ch]", "hyperjail/*.[ch]", "hyperbuilder/*.[ch]"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    long = [
        f"{file}:{number}"
        for file in tracked
        for number, line in enumerate((repository / file).read_text().splitlines(), 1)
        if len(line.expandtabs(8 if file.endswith((".c", ".h")) else 4)) > LINE_LIMIT
    ]
    assert long == []


def test_no_condition_within_a_condition(repository: Path) -> None:
    """`a if b else c if d else e` is for readers who enjoy puzzles."""
    nested = [
        f"{path}:{node.lineno}"
        for path in [*sources(repository), *sorted((repository / "tests").rglob("*.py"))]
        for node in ast.walk(tree(path))
        if isinstance(node, ast.IfExp) and any(isinstance(n, ast.IfExp) for n in ast.walk(node) if n is not node)
    ]
    assert nested == []


def test_c_budgets(repository: Path) -> None:
    over = []
    for path in [p for program in C_PROGRAMS for p in (repository / program).glob("*/*.c") if p.parent.name != "tests"]:
        lines = path.read_text().splitlines()
        assert len(lines) <= MODULE_LIMIT, path
        begin = 0
        for number, line in enumerate(lines, 1):
            if line == "{":
                begin = number
            elif line == "}" and begin and number - begin > C_FUNCTION_LIMIT:
                over.append(f"{path.name}:{begin}")
    assert over == []


@pytest.mark.parametrize(
    "pattern",
    ["**/*.py", "hyperstart/**/*.[ch]", "hyperjail/**/*.[ch]", "hyperbuilder/**/*.[ch]", "scripts/*", "Makefile"],
)
def test_every_file_names_its_licence(repository: Path, pattern: str) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", pattern], cwd=repository, capture_output=True, text=True, check=True
    ).stdout.split()
    missing = [f for f in tracked if "SPDX-License-Identifier: Apache-2.0" not in (repository / f).read_text()[:300]]
    assert missing == []


def test_every_module_says_what_it_is_for(repository: Path) -> None:
    silent = [
        str(p.relative_to(repository))
        for p in (repository / "src").rglob("*.py")
        if p.name not in ("__main__.py",) and ast.get_docstring(tree(p)) is None
    ]
    assert silent == []


SPEAK = ("engine", "guest", "network", "hypervisor", "images", "volumes", "state")  # packages


def silent(trees: dict[str, ast.Module]) -> list[str]:
    """Public classes and functions, by the files' names, that do not say what they do in a whole sentence.

    A method of a protocol says it once for all that implement it, and a fake is what its port says.
    """
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    said = {
        m.name
        for tree in trees.values()
        for c in ast.walk(tree)
        if isinstance(c, ast.ClassDef) and any("Protocol" in ast.unparse(b) for b in c.bases)
        for m in c.body
        if isinstance(m, definitions) and ast.get_docstring(m)
    }
    found = []

    def visit(file: str, body: list[ast.stmt], within: str = "") -> None:
        for d in body:
            if not isinstance(d, definitions) or d.name.startswith("_"):
                continue
            text = ast.get_docstring(d)
            once = within and (d.name in said or Path(file).name.startswith("fake"))
            if not (text.partition("\n\n")[0].endswith((".", "?", "!", ":")) if text else once):
                found.append(f"{file}:{d.lineno}: {within}{d.name}")
            if isinstance(d, ast.ClassDef):
                visit(file, d.body, f"{d.name}.")

    for file, tree in trees.items():
        visit(file, tree.body)
    return found


def test_everything_public_says_what_it_does(repository: Path) -> None:
    files = [p for d in SPEAK for p in sorted((repository / "src/hypercontainer" / d).rglob("*.py"))]
    assert silent({str(p.relative_to(repository)): tree(p) for p in files}) == []


def test_what_says_nothing_is_found() -> None:
    text = """
class Port(Protocol):
    def verb(self): "Does it."
class Real:
    "Of the host."
    def verb(self): pass
    def other(self): "no sentence"
    def third(self): pass
def function(): pass
def good():
    'What it does.'
def _own(): pass
"""
    assert silent({"a.py": ast.parse(text)}) == [
        "a.py:2: Port", "a.py:7: Real.other", "a.py:8: Real.third", "a.py:9: function"
    ]  # fmt: skip
    assert silent({"fake_a.py": ast.parse("class A:\n  'A fake.'\n  def f(self): pass\ndef g(): pass")}) == [
        "fake_a.py:4: g"
    ]


def test_no_conflict_was_left(repository: Path) -> None:
    found = subprocess.run(
        ["git", "grep", "-lE", "^(<{7}|>{7}) "], cwd=repository, capture_output=True, text=True, check=False
    )
    assert found.stdout == ""
