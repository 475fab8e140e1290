# SPDX-License-Identifier: Apache-2.0
"""Of a bill of materials of the whole environment that of a release, and its licences as a page.

Usage: python scripts/sbom.py ALL.json [DIRECTORY]
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NAME = "sbom.cdx.json"
PAGE = "licenses.md"
# Programs of the host that are started, and are no part of a release.
TOOLS = {
    "qemu-system-x86": "GPL-2.0-only", "virtiofsd": "Apache-2.0 AND BSD-3-Clause", "passt": "GPL-2.0-or-later",
    "skopeo": "Apache-2.0", "e2fsprogs": "GPL-2.0-only", "nftables": "GPL-2.0-only",
}  # fmt: skip


# Words of classifiers, and what packages state elsewhere than in their metadata.
SPELLED = {"License :: OSI Approved :: Apache Software License": "Apache-2.0"}
STATED = {"dnslib": "BSD-2-Clause", "protobuf": "BSD-3-Clause"}  # their LICENSE


def canonical(name: str) -> str:
    """As PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed() -> set[str]:
    """The packages that an installed hyperd has, by the markers of this Python on Linux."""
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: set[str] = set()
    left = list(project["dependencies"])
    while left:
        requirement = Requirement(left.pop())
        name = canonical(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        left += metadata.requires(name) or []
    return found


def own_parts() -> list[dict[str, Any]]:
    """What is built from source: the guest's kernel, its init, and the C library that is linked into that."""
    pin = json.loads((ROOT / "hyperkernel/pin.json").read_text())
    zig = metadata.version("ziglang")
    return [
        {
            "type": "operating-system", "bom-ref": "hyperkernel", "name": "hyperkernel", "version": pin["version"],
            "description": "the guest's kernel: Debian's source of Linux, a fragment of configuration, our patches",
            "purl": f"pkg:deb/debian/{pin['package']}@{pin['version']}?arch=source",
            "hashes": [{"alg": "SHA-256", "content": pin["sha256"]}],
            "licenses": [{"expression": "GPL-2.0-only WITH Linux-syscall-note"}],
        },
        {
            "type": "application", "bom-ref": "hyperstart", "name": "hyperstart", "version": version(),
            "description": "the guest's init, static", "licenses": [{"license": {"id": "Apache-2.0"}}],
        },
        {
            "type": "library", "bom-ref": "musl", "name": "musl", "version": f"of ziglang {zig}",
            "description": "the C library that is linked into hyperstart", "licenses": [{"license": {"id": "MIT"}}],
        },
    ]  # fmt: skip


def version() -> str:
    found = re.search(r'__version__ = "(.+)"', (ROOT / "src/hypercontainer/__init__.py").read_text())
    assert found
    return found[1]


def licence(component: dict[str, Any]) -> str:
    """As its bill says: an expression before identifiers, before names; classifiers say the same again."""
    found = component.get("licenses", [])
    for entry in found:
        if "expression" in entry:
            return str(entry["expression"])
    ids = [e["license"]["id"] for e in found if "id" in e.get("license", {})]
    names = [e["license"]["name"] for e in found if "name" in e.get("license", {})]
    words = " AND ".join(dict.fromkeys(ids or [n.splitlines()[0] for n in names if len(n) < 80]))
    return SPELLED.get(words, words) or STATED.get(canonical(component["name"]), "?")


def bill(whole: dict[str, Any]) -> dict[str, Any]:
    """Of what is shipped and needed."""
    wanted = needed()
    parts = [c for c in whole["components"] if canonical(c["name"]) in wanted]
    refs = {c["bom-ref"] for c in parts} | {whole["metadata"]["component"]["bom-ref"]}
    dependencies = [
        {**d, "dependsOn": [r for r in d.get("dependsOn", []) if r in refs]}
        for d in whole.get("dependencies", [])
        if d["ref"] in refs
    ]
    for part in parts:
        part.pop("evidence", None)
        if part.get("licenses"):
            part["licenses"] = [e for e in part["licenses"] if len(json.dumps(e)) < 400]  # not whole texts
    whole["metadata"]["component"]["version"] = version()
    return whole | {"components": sorted(parts + own_parts(), key=lambda c: c["name"]), "dependencies": dependencies}


def page(made: dict[str, Any]) -> str:
    rows = [f"| {c['name']} | {c['version']} | {licence(c)} |" for c in made["components"]]
    tools = [f"| {name} | {text} |" for name, text in TOOLS.items()]
    return "\n".join([
        "# Licences", "",
        f"Written by `make sbom`, from [{NAME}]({NAME}) (CycloneDX 1.6). HyperContainer itself is Apache-2.0.",
        "", "What a release has in it or needs of Python's packages:", "", "| part | version | licence |",
        "| --- | --- | --- |", *rows, "",
        "Programs of the host that hyperd starts, and that come from its distribution:", "", "| program | licence |",
        "| --- | --- |", *tools, "",
    ])  # fmt: skip


def write(source: Path, directory: Path) -> None:
    made = bill(json.loads(source.read_text()))
    (directory / NAME).write_text(json.dumps(made, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    (directory / PAGE).write_text(page(made))


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "docs")
