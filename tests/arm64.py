# SPDX-License-Identifier: Apache-2.0
"""An image of Debian's static busybox for several processors, and what a machine of another processor takes here."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from hypercontainer.errors import HyperError
from hypercontainer.hypervisor.qemu.machine_types import PROCESSORS
from hypercontainer.images.layout import Layout
from hypercontainer.images.manifests import CONFIG, INDEX, LAYER, MANIFEST
from hypercontainer.kernel.locate import locate
from hypercontainer.model.architectures import MACHINES, host
from hypercontainer.sys import caches

from .e2e.keeping import kept

OTHER = next(name for name in MACHINES if name != host())
TOLD = f"this host is {host()}: linux/{OTHER} runs emulated, several times slower"
DEMANDED = bool(os.environ.get("HYPER_TEST_ARM64"))  # by `make test-arm64`: nothing is skipped
_REVISION = 2  # raise it when the image is made differently
_APPLETS = (
    "sh", "cat", "date", "dd", "df", "echo", "env", "false", "free", "grep", "head", "hostname", "httpd", "id", "ip",
    "ls", "mkdir", "mount", "nc", "netstat", "nproc", "ps", "seq", "sha256sum", "sleep", "sync", "touch", "true",
    "uname", "wget",
)  # fmt: skip


def require() -> None:
    """Skip what cannot run here; `make arm64` sets it up."""
    try:
        locate(architecture=OTHER)
        missing = "" if shutil.which(PROCESSORS[OTHER].binary) else f"{PROCESSORS[OTHER].binary} is not installed"
    except HyperError as error:
        missing = error.message
    if missing and DEMANDED:
        pytest.fail(missing)
    if missing:
        pytest.skip(f"{missing}: `make arm64` sets it up")


def image() -> str:
    """`oci:DIRECTORY:test`, an index of an image for amd64 and of one for arm64."""
    place = caches.cache_directory("test-images") / f"busybox-of-all-{_REVISION}"
    try:
        return f"oci:{kept(place, _make)}:test"
    except subprocess.SubprocessError as error:
        if DEMANDED:
            raise
        pytest.skip(f"Debian's busybox-static for {OTHER} is not to be had: {error}")


def _make(new: Path, scratch: Path) -> None:
    layout = Layout(new)
    layout.create()
    entries = []
    for architecture in MACHINES:
        tar = _tree(_package(architecture, scratch / architecture) / "bin/busybox")
        layer = layout.blobs.add(tar)
        config = layout.blobs.add(
            json.dumps(
                {"architecture": architecture, "os": "linux", "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
                 "rootfs": {"type": "layers", "diff_ids": [layer.digest]}}
            ).encode()
        )  # fmt: skip
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": config.digest, "size": config.size},
            "layers": [{"mediaType": LAYER, "digest": layer.digest, "size": layer.size}],
        }  # fmt: skip
        blob = layout.blobs.add(json.dumps(manifest).encode())
        entries.append({"mediaType": MANIFEST, "digest": blob.digest, "size": blob.size,
                        "platform": {"os": "linux", "architecture": architecture}})  # fmt: skip
    index = layout.blobs.add(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode())
    named = {"mediaType": INDEX, "digest": index.digest, "size": index.size,
             "annotations": {"org.opencontainers.image.ref.name": "test"}}  # fmt: skip
    (new / "index.json").write_text(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]}))


def _package(architecture: str, scratch: Path) -> Path:
    """What Debian's package has; apt verifies it, with lists of that architecture and nothing of this host's dpkg."""
    for name in ("lists/partial", "cache/archives/partial", "tree"):
        (scratch / name).mkdir(parents=True)
    options = {
        "APT::Architecture": architecture, "Dir::State::Lists": f"{scratch}/lists", "Dir::Cache": f"{scratch}/cache",
        "Dir::State::status": "/dev/null", "APT::Sandbox::User": "root",
    }  # fmt: skip
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    for verb in (["update"], ["download", "busybox-static"]):
        subprocess.run([*apt, *verb], cwd=scratch, check=True, capture_output=True, timeout=300)
    (package,) = scratch.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, scratch / "tree"], check=True)
    return scratch / "tree"


def _tree(busybox: Path) -> bytes:
    """busybox under its names, as a tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, mode
            tar.addfile(info)
        info = tarfile.TarInfo("bin/busybox")
        info.size, info.mode = busybox.stat().st_size, 0o755
        tar.addfile(info, io.BytesIO(busybox.read_bytes()))
        for applet in _APPLETS:
            info = tarfile.TarInfo(f"bin/{applet}")
            info.type, info.linkname, info.mode = tarfile.LNKTYPE, "bin/busybox", 0o755
            tar.addfile(info)
    return out.getvalue()
