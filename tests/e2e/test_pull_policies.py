# SPDX-License-Identifier: Apache-2.0
"""`--pull missing|always|never`, of a tag that moves and of pinned digests, with the registry there and gone."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.registry import Registry, serving

from .conftest import Daemon, push
from .test_errors import make_layout


@dataclass
class Site:
    """A registry whose tag `moving:1` was one image, and is another."""

    daemon: Daemon
    registry: Registry
    first: Path
    second: Path
    close_registry: Callable[[], object]

    @property
    def name(self) -> str:
        return f"{self.registry.address}/moving:1"

    def push(self, layout: Path) -> str:
        """The manifest's digest, which the tag names from now on."""
        push(layout, self.registry, "moving:1")
        words = ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{self.name}"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    def create(self, policy: str, image: str) -> str:
        """The digest of what a container is made of; or why there is none."""
        done = self.daemon.ctl("create", "-q", "--pull", policy, "--name", "made", image, "true", check=False)
        if done.returncode:
            assert done.returncode == 1 and self.daemon.out("ps", "-aq") == ""
            return done.stderr
        id_ = self.daemon.out("inspect", "-f", "{{.imageId}}", "made")
        self.daemon.ctl("rm", "made")
        digest: str = json.loads(self.daemon.out("inspect", "--type", "image", id_))[0]["digest"]
        return digest

    def pinned(self, digest: str) -> str:
        return f"{self.registry.address}/moving@{digest}"


@pytest.fixture
def site(hyper: Daemon, tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "registry").mkdir()
    with contextlib.ExitStack() as stack:
        registry = stack.enter_context(serving(tmp_path / "registry"))
        layouts = (make_layout(tmp_path / "a", "first"), make_layout(tmp_path / "b", "second"))
        yield Site(hyper, registry, *layouts, stack.close)
    hyper.ctl("image-prune", "-a", "-f")
    hyper.ctl("pull", "-q", "builtin:busybox")


def test_a_tag_that_moves_and_a_registry_that_goes(site: Site) -> None:
    first = site.push(site.first)
    assert "no such image" in site.create("never", site.name)
    assert site.create("missing", site.name) == first
    second = site.push(site.second)
    assert site.create("missing", site.name) == site.create("never", site.name) == first
    assert site.create("always", site.name) == second
    assert site.create("missing", site.name) == site.create("never", site.name) == second
    site.close_registry()
    assert site.create("missing", site.name) == site.create("never", site.name) == second
    assert "nothing answers at the registry's address" in site.create("always", site.name)
    assert site.create("never", site.name) == second  # what was there stays


def test_pinned_digests(site: Site) -> None:
    """A digest names one image whatever its tag does; one that is there needs no registry, unless it is asked for."""
    first, nothing = site.push(site.first), f"sha256:{'0' * 64}"
    second = site.push(site.second)
    assert "no such image" in site.create("never", site.pinned(first))
    assert site.create("missing", site.pinned(first)) == first
    assert site.create("always", site.pinned(first)) == first
    assert "no such image" in site.create("missing", site.pinned(nothing))
    site.close_registry()
    assert site.create("missing", site.pinned(first)) == site.create("never", site.pinned(first)) == first
    for policy in ("missing", "always"):
        assert "nothing answers at the registry's address" in site.create(policy, site.pinned(second))
    assert "no such image" in site.create("never", site.pinned(second))
