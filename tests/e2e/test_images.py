# SPDX-License-Identifier: Apache-2.0
"""Images as users meet them: archives wherever a name is taken, filters, damage, bombs."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.unit.layouts import END, Maker, header

from .conftest import Daemon, launched

NAME = "example.com/from/archive:v1"


@pytest.fixture(scope="module")
def archives(shared: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """busybox as image.tar of docker's and of OCI's kind."""
    directory = tmp_path_factory.mktemp("archives")
    source = f"oci:{shared.root}/images:docker.io/library/busybox:latest"
    for kind in ("docker-archive", "oci-archive"):
        command = ["skopeo", "--insecure-policy", "copy", "-q", source, f"{kind}:{directory}/{kind}.tar:{NAME}"]
        subprocess.run(command, check=True, capture_output=True)
    subprocess.run(["gzip", "-k", directory / "docker-archive.tar"], check=True)
    return directory


@pytest.mark.parametrize(
    "place",
    ["docker-archive:docker-archive.tar", "docker-archive:docker-archive.tar.gz", "oci-archive:oci-archive.tar"],
)
def test_run_takes_an_image_from_an_archive(
    hyper: Daemon, archives: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(archives)  # the daemon works elsewhere
    assert hyper.out("run", "--rm", "-q", place, "echo", "from an archive") == "from an archive"
    hyper.ctl("create", "--name", "of-archive", place, "true")
    assert hyper.out("ps", "-a", "--format", "{{.Image}}") == NAME


def test_a_podfile_takes_an_image_from_an_archive(hyper: Daemon, archives: Path, tmp_path: Path) -> None:
    podfile = tmp_path / "pod.json"
    container = {
        "name": "c",
        "image": f"oci-archive:{archives}/oci-archive.tar",
        "command": ["echo", "pod of an archive"],
    }
    podfile.write_text(json.dumps({"id": "of-archive", "containers": [container]}))
    assert "pod of an archive" in hyper.out("run", "-a", "--rm", "-p", podfile)


def test_ancestors_however_they_are_spelled(hyper: Daemon) -> None:
    id_ = hyper.out("create", "busybox", "true")
    image = json.loads(hyper.out("inspect", "--type", "image", "busybox"))[0]["id"]
    for name in (
        "busybox",
        "busybox:latest",
        "docker.io/library/busybox",
        "docker.io/library/busybox:latest",
        "builtin:busybox",
        image,
        image[:19],
        image[7:19],
    ):
        assert hyper.out("ps", "-aq", "--no-trunc", "-f", f"ancestor={name}") == id_, name
    for name in ("busybox:other", "example.com/busybox", "BUSY", "sha256:0000"):
        assert hyper.out("ps", "-aq", "-f", f"ancestor={name}") == "", name


def test_the_age_of_busybox(hyper: Daemon) -> None:
    created = hyper.out("images", "busybox", "--format", "{{.CreatedSince}}")
    assert created and int(created.split()[0]) < 30, created


def test_an_image_of_another_platform_is_refused(hyper: Daemon) -> None:
    for options in ((), ("--pull", "always")):
        done = hyper.ctl("run", "--rm", *options, "--platform", "linux/arm64", "builtin:busybox", "true", check=False)
        assert done.returncode == 125 and "not for linux/arm64" in done.stderr, done.stderr


def test_a_damaged_image_is_named_and_mended(tmp_path: Path) -> None:
    make = Maker(tmp_path / "layout")
    source = make.image(make.layer([header("file"), END]))
    with launched(tmp_path / "root") as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        id_ = daemon.out("pull", "-q", source)
        daemon.stop()
    (tmp_path / "root/images/blobs/sha256" / id_.removeprefix("sha256:")).write_bytes(b"{}")
    with launched(tmp_path / "root") as daemon:
        found = daemon.ctl("images")
        assert "image bomb:latest is damaged" in found.stderr and "busybox" in found.stdout
        assert daemon.ctl("info").returncode == 0
        assert daemon.ctl("create", "--pull", "never", "bomb", "true", check=False).returncode != 0
        assert daemon.out("pull", "-q", source) == id_
        assert daemon.ctl("images").stderr == ""


def test_a_bomb_hurts_nobody(hyper: Daemon, tmp_path: Path) -> None:
    """The daemon answers others while it is refused."""
    make = Maker(tmp_path / "layout")
    zeros = [header("zeros", size=1 << 30), *[bytes(1 << 20)] * 1024, END]
    source = make.image(make.layer(zeros))
    pull = subprocess.Popen(["hyperctl", "pull", source], stderr=subprocess.PIPE, text=True, env=hyper.environment)
    slowest = 0.0
    while pull.poll() is None:  # an answer takes what hyperctl needs for itself, and no more
        begun = time.monotonic()
        hyper.ctl("version")
        slowest = max(slowest, time.monotonic() - begun)
    _, stderr = pull.communicate()
    assert pull.returncode == 1 and slowest < 10
    (line,) = [x for x in stderr.splitlines() if x.startswith("hyperctl: ")]
    assert source in line and "layer 1 (sha256:" in line and "raise image_ratio in hyperd's configuration" in line
    assert hyper.leftovers()["staging"] == hyper.leftovers()["half-made"] == []
