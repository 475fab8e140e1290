# SPDX-License-Identifier: Apache-2.0
"""Names in the code are the words of docs/glossary.md, and none of those that it replaces."""

from __future__ import annotations

import io
import keyword
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

# The stems of words that the glossary replaces, as part of a name in snake_case or CamelCase.
GONE = {
    "card", "cards", "furnish", "adopt", "adopts", "adopted", "bury", "buried", "hub", "hubs", "disown", "disowned",
    "withdraw", "withdrawn", "farewell", "settle", "settled", "settles",
}  # fmt: skip
GONE_PHRASES = {"take_up", "take_down"}
_MAY = re.compile("|".join(GONE | GONE_PHRASES | {p.replace("_", "") for p in GONE_PHRASES}), re.IGNORECASE)
ALLOWED = {"_HUB", "_HUB_KEY"}  # Docker Hub


def words(name: str) -> list[str]:
    """`_loadRules_4`, `LoadRules` and `load_rules` as load, rules."""
    return [w.lower() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def wrong(name: str) -> bool:
    found = words(name)
    pairs = {"_".join(pair) for pair in zip(found, found[1:], strict=False)}
    return name not in ALLOWED and bool(GONE & set(found) or GONE_PHRASES & pairs)


def names(path: Path) -> Iterator[tuple[int, str]]:
    """Identifiers with their lines; of C's files whatever looks like one outside comments and strings."""
    text = path.read_text()
    if not _MAY.search(text):
        return
    if path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
                yield token.start[0], token.string
        return
    code = re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\])*"', lambda m: "\n" * m[0].count("\n"), text, flags=re.DOTALL)
    for number, line in enumerate(code.splitlines(), 1):
        for name in re.findall(r"\b[A-Za-z_]\w*", line):
            yield number, name


def test_names_are_the_glossarys_words(repository: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*.py", "hyperstart/*.[ch]"], cwd=repository, capture_output=True, text=True, check=True
    ).stdout.split()
    # A test's own name is a sentence, in which such words are words.
    found = {
        f"{file}:{line}: {name}"
        for file in listed
        for line, name in names(repository / file)
        if wrong(name) and not name.startswith("test_")
    }
    assert sorted(found) == []


@pytest.mark.parametrize(
    ("name", "is_wrong"),
    [
        ("_of_card", True), ("CardMac", True), ("NIC_CARD", True), ("discard", False), ("take_up_waiting", True),
        ("take", False), ("_HUB_KEY", False), ("output_hub", True), ("github", False), ("disk_settle", True),
    ],
)  # fmt: skip
def test_what_a_name_is_made_of(name: str, is_wrong: bool) -> None:
    assert wrong(name) is is_wrong


def test_each_word_has_one_meaning(repository: Path) -> None:
    text = (repository / "docs/glossary.md").read_text()
    defined, replaced = text.split("## Words that the code's names do not have")
    terms = re.findall(r"\*\*(.+?)\*\*", defined)
    assert len(terms) == len(set(terms)) > 20
    listed = {w for row in re.findall(r"^\| ([^|]+) \|", replaced, re.MULTILINE) for w in re.findall(r"[a-z]+", row)}
    assert {w for w in GONE if w in listed} >= {
        "card",
        "furnish",
        "adopt",
        "bury",
        "hub",
        "disown",
        "withdraw",
        "settle",
    }
