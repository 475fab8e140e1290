# SPDX-License-Identifier: Apache-2.0
"""podman's own tests of what Docker's clients expect: out of Debian's source package libpod, never kept here.

They are taken as they are, but for what the table below says: they start podman, name images by its short names, and
take them from quay.io, in whose place is a registry of the run's own.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hypercontainer.sys import caches
from tests import debian

ALPINE = "quay.io/libpod/alpine"
# Packages that the tests import; the versions that podman names do not run on this Python.
_NEEDS = ("docker>=7,<8", "requests>=2.31", "python-dateutil>=2.8")
# File (a pattern), what stands in it, what is put there.
_CHANGES = (
    # Docker finds an image by its name; podman also by the last part of it.
    (r"docker/compat/test_.*\.py", r'image="alpine"', f'image="{ALPINE}"'),
    (r"docker/compat/test_.*\.py", r'"reference": "alpine"', f'"reference": "{ALPINE}"'),
    (r"rest_api/test_.*\.py", r'"alpine:latest"', f'"{ALPINE}:latest"'),
    (r"rest_api/test_.*\.py", r"images/alpine", f"images/{ALPINE}"),
    (r"rest_api/test_.*\.py", r"fromImage=alpine&", f"fromImage={ALPINE}&tag=latest&"),
    # What is set up before each test is by podman's own API.
    (r"api_testcase\.py", r'"/images/pull\?reference=[^"]*"', f'"/images/create?fromImage={ALPINE}&tag=latest"'),
    (r"api_testcase\.py", r'"/v2\.0\.0/libpod"', '"/v1.40"'),
    (r"api_testcase\.py", r'"/v3\.0\.0/"', '"/v1.40"'),
)


def fetch() -> tuple[Path, Path]:
    """The directory of the tests, and that of the Python packages that they need; fetched once."""
    place = caches.cache_directory("conformance")
    place.mkdir(parents=True, exist_ok=True)
    source, packages = place / "libpod", place / "packages"
    if not source.exists():
        with tempfile.TemporaryDirectory(dir=place) as scratch:
            _source(Path(scratch)).rename(source)
    if not packages.exists():
        with tempfile.TemporaryDirectory(dir=place) as scratch:
            new = Path(scratch) / "new"
            subprocess.run(
                [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check",
                 "--root-user-action=ignore", "--target", new, *_NEEDS],
                check=True,
            )  # fmt: skip
            new.rename(packages)
    return source, packages


def _source(scratch: Path) -> Path:
    archive = debian.source("libpod", scratch)
    tree = scratch / "tree"
    tree.mkdir()
    wanted = ["--wildcards", "*/test/apiv2", "*/test/python"]
    subprocess.run(["tar", "-xf", archive, "-C", tree, "--strip-components=1", *wanted], check=True)
    return tree


def adapted(source: Path, place: Path, registry: str) -> Path:
    """A copy in which they speak of our socket, and of this registry."""
    shutil.copytree(source / "test", place / "test")
    (place / "test/__init__.py").touch()
    for path in (place / "test").rglob("*.py"):
        text = path.read_text()
        for where, before, after in _CHANGES:
            if re.search(where, str(path)):
                text = re.sub(before, lambda _, after=after: after, text)  # type: ignore[misc]
        path.write_text(text.replace("quay.io", registry))
    return place


def is_podmans(path: Path, case: str) -> bool:
    """Whether a case asks for podman's own API: it is not counted."""
    text = path.read_text()
    found = re.search(rf"    def {case}\(self.*?(?=\n    def |\nif __name__|\nclass |\Z)", text, re.S)
    return bool(found and re.search(r"self\.uri\(|libpod/containers|libpod/volumes", found[0]))
