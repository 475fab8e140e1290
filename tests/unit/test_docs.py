# SPDX-License-Identifier: Apache-2.0
"""The documents agree with the program."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from hypercontainer import __version__
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
    for page in [repository / "README.md", repository / "SECURITY.md", *(repository / "docs").rglob("*.md")]:
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
        if isinstance(t, type) and issubclass(t, document.Part) and not t.__subclasses__()  # which have its fields
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


def test_the_bill_of_materials_is_that_of_what_is_locked(repository: Path) -> None:
    """Every package that is needed, at its version in requirements.lock; kernel and init; each with a licence."""
    bill = json.loads((repository / "docs/sbom.cdx.json").read_text())
    found = {c["name"].lower().replace("_", "-"): c["version"] for c in bill["components"]}
    locked = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (repository / "requirements.lock").read_text(), re.MULTILINE))
    own = {n: v for n, v in found.items() if n not in ("hyperkernel", "hyperstart", "musl")}
    assert own == {n: locked[n] for n in own}, "run `make sbom`"
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    direct = {re.split(r"[<>=~!]", d)[0].lower() for d in project["dependencies"]}
    assert direct <= set(own) and not {"pytest", "ruff", "schemathesis"} & set(own), "run `make sbom`"
    pin = json.loads((repository / "hyperkernel/pin.json").read_text())
    assert (found["hyperkernel"], found["hyperstart"]) == (pin["version"], __version__), "run `make sbom`"
    page = (repository / "docs/licenses.md").read_text()
    assert all(f"| {c['name']} | {c['version']} |" in page for c in bill["components"]) and "| ? |" not in page
