# SPDX-License-Identifier: Apache-2.0
"""requirements.lock is what pyproject.toml asks for: every package, at one version within the range, with hashes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_LINE = re.compile(
    r"(?P<name>[\w.-]+)==(?P<version>\S+)(?: ; (?P<marker>[^\\]+?))?(?P<hashes>(?: --hash=sha256:[0-9a-f]{64})+)"
)


LOCKS = ["requirements.lock", *(f"requirements-{extra}.lock" for extra in ("bench", "fuzz", "sbom"))]


def entries(path: Path) -> dict[str, str]:
    """Package -> version; every line of the file must be one with hashes."""
    text = re.sub(r"#.*\n", "", path.read_text()).replace("\\\n", "")
    found = {}
    for line in filter(None, (" ".join(x.split()) for x in text.splitlines())):
        match = _LINE.fullmatch(line)
        assert match, line[:200]
        found[canonicalize_name(match["name"])] = match["version"]
    return found


def project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text())


@pytest.mark.parametrize("file", LOCKS)
def test_the_lock_fits_the_project(repository: Path, file: str) -> None:
    asked = project(repository)
    extras = asked["project"]["optional-dependencies"]
    all_of_it = [*asked["build-system"]["requires"], *asked["project"]["dependencies"], *extras["dev"]]
    wanted = extras.get(file.removeprefix("requirements-").removesuffix(".lock"), all_of_it)
    locked = entries(repository / file)
    for text in wanted:
        requirement = Requirement(text)
        version = locked.get(canonicalize_name(requirement.name))
        assert version, f"{text} is not in {file}: run scripts/lock"
        assert requirement.specifier.contains(version), f"{text}, and {file} has {version}: run scripts/lock"


@pytest.mark.parametrize("file", ["requirements-bench.lock", "requirements-fuzz.lock"])
def test_the_locks_agree(repository: Path, file: str) -> None:
    one, two = entries(repository / "requirements.lock"), entries(repository / file)
    assert {name for name in one.keys() & two.keys() if one[name] != two[name]} == set()


@pytest.mark.parametrize("file", LOCKS)
def test_the_lock_names_no_registry(repository: Path, file: str) -> None:
    """Where packages come from is the user's pip's business; what they are, the hashes'."""
    assert not re.search(r"://|--(?:extra-)?index-url|--find-links|--trusted-host", (repository / file).read_text())


def test_set_up_installs_the_lock(repository: Path) -> None:
    text = (repository / "scripts/setup").read_text()
    installs = [line.strip() for line in text.splitlines() if re.match(r"\s*pip_install -", line)]
    assert installs == [
        "pip_install --require-hashes --requirement requirements.lock",
        "pip_install --no-build-isolation --no-deps --editable .",
    ]
