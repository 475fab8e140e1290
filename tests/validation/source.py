# SPDX-License-Identifier: Apache-2.0
"""The programs of runtime-tools, built from Debian's source package and its packages of Go's libraries; kept.

The package of Debian 12 is not on every mirror, so that of Debian 13 is taken.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from hypercontainer.sys import caches
from tests import debian, golang

_RELEASE = "trixie"
_PACKAGE = "golang-github-opencontainers-runtime-tools"
_LIBRARIES = (
    "golang-github-blang-semver-dev", "golang-github-cpuguy83-go-md2man-v2-dev", "golang-github-google-uuid-dev",
    "golang-github-hashicorp-errwrap-dev", "golang-github-hashicorp-go-multierror-dev",
    "golang-github-mrunalp-fileutils-dev", "golang-github-opencontainers-selinux-dev",
    "golang-github-opencontainers-specs-dev", "golang-github-russross-blackfriday-v2-dev",
    "golang-github-sirupsen-logrus-dev", "golang-github-urfave-cli-dev", "golang-github-xeipuuv-gojsonpointer-dev",
    "golang-github-xeipuuv-gojsonreference-dev", "golang-github-xeipuuv-gojsonschema-dev", "golang-gocapability-dev",
    "golang-golang-x-sys-dev",
)  # fmt: skip
_IN_GOPATH = "src/github.com/opencontainers/runtime-tools"
_HARNESS = "src/github.com/mndrix/tap-go"  # which Debian does not have
PROGRAMS = "programs"


def built() -> Path:
    """A directory with what the programs want beside them, and with the programs in PROGRAMS.

    Built the first time, in about five minutes of two processors.
    """
    place = caches.cache_directory("runtime-tools")
    place.mkdir(parents=True, exist_ok=True)
    done = place / "built"
    if not done.exists():
        with tempfile.TemporaryDirectory(dir=place) as scratch:
            _build(Path(scratch)).rename(done)
    return done


def _build(scratch: Path) -> Path:
    print("fetching runtime-tools' source and Go", flush=True)
    path, new = scratch / "path", scratch / "new"
    tree = path / _IN_GOPATH
    files = debian.unpacked(*_LIBRARIES[:1], scratch, *_LIBRARIES[1:], release=_RELEASE)
    shutil.copytree(files / "usr/share/gocode", path, symlinks=True)
    tree.mkdir()
    archive = debian.source(_PACKAGE, scratch, _RELEASE)
    subprocess.run(["tar", "-xf", archive, "-C", tree, "--strip-components=1"], check=True)
    (path / _HARNESS).mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("tap.go"), path / _HARNESS)
    (new / PROGRAMS).mkdir(parents=True)
    environment = golang.toolchain(scratch)
    print("building its programs: about five minutes", flush=True)
    names = [f"./validation/{each.name}" for each in sorted((tree / "validation").iterdir()) if each.name != "util"]
    for out, packages in ((new / PROGRAMS, names), (new, ["./cmd/runtimetest"])):
        command = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", f"{out}/", *packages]
        subprocess.run(command, cwd=tree, env=environment, check=True)
    for root in tree.glob("rootfs-*.tar.gz"):
        shutil.copy(root, new)
    return new
