# SPDX-License-Identifier: Apache-2.0
"""The documents agree with the program."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from hypercontainer.api.app import ROUTES
from hypercontainer.api.openapi import document
from hypercontainer.hyperctl.cli import HELP, VERBS

ROOT = Path(__file__).parents[2]


def test_man_pages_are_the_commands_help(repository: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "scripts/make_man.py", tmp_path], cwd=repository, check=True)
    kept = {p.name: p.read_text() for p in (repository / "docs/man").glob("*.1")}
    made = {p.name: p.read_text() for p in tmp_path.glob("*.1")}
    assert kept == made, "run `make man`"


def test_every_verb_has_a_summary_and_a_page(repository: Path) -> None:
    assert set(VERBS) == set(HELP)
    assert all((repository / f"docs/man/hyperctl-{verb}.1").exists() for verb in VERBS)


def test_openapi_document_covers_every_route() -> None:
    paths = document(ROUTES)["paths"]
    for route in ROUTES:
        operation = paths[f"/v1{route.path}"][route.method.lower()]
        assert operation["summary"] and "default" in operation["responses"]
    ids = [op["operationId"] for methods in paths.values() for op in methods.values()]
    assert len(ids) == len(set(ids))


def test_links_between_documents_lead_somewhere(repository: Path) -> None:
    broken = []
    for page in [repository / "README.md", *(repository / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            if not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def _podfile_table() -> dict[str, dict[str, str]]:
    """docs/podfile.md: structure -> field -> test."""
    found: dict[str, dict[str, str]] = {}
    section = ""
    for line in (ROOT / "docs/podfile.md").read_text().splitlines():
        if line.startswith("## "):
            section = line[3:]
        elif match := re.match(r"\| `(\w+)` \|.*\| `([^`]+)` \|$", line):
            found.setdefault(section, {})[match[1]] = match[2]
    return found


def test_every_field_of_the_podfile_has_a_test() -> None:
    import msgspec

    from hypercontainer.podfile import document

    table = _podfile_table()
    structures = {
        n: t
        for n, t in vars(document).items()
        if isinstance(t, type) and issubclass(t, document.Part) and t is not document.Part
    }
    fields = {n: {f.encode_name for f in msgspec.structs.fields(t)} for n, t in structures.items()}
    assert {n: set(rows) for n, rows in table.items()} == fields
    for rows in table.values():
        for field, test in rows.items():
            path, _, function = test.partition("::")
            source = (ROOT / path).read_text()
            assert re.search(rf"^(async )?def {function}\(", source, re.MULTILINE), f"{field}: there is no {test}"


def test_the_shipped_schema_is_the_podfiles() -> None:
    import json

    from hypercontainer.podfile.strict import schema

    kept = json.loads((ROOT / "docs/podfile.schema.json").read_text())
    assert kept == schema(), "run `hyperctl pod schema > docs/podfile.schema.json`"
