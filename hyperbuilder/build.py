#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Build the image of the builder: Debian's dockerd, with what runs an image's build, as an OCI archive.

Packages are unpacked (mmdebstrap), not installed: nothing of theirs is to run here, and dockerd needs nothing of
what their scripts would do. The result goes to a directory named by the hash of what went into it
($XDG_CACHE_HOME/hyper/builder/HASH/image.tar), so a second call has nothing to do; what Debian's mirrors offer by
then does not count. Only the standard library, and the compiler that hyperstart is built with.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

HERE = Path(__file__).resolve().parent
SUITE = "trixie"
REVISION = 1  # raise it when the same packages and files are put together differently
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
TARGET = {"amd64": "x86_64-linux-musl", "arm64": "aarch64-linux-musl"}[ARCHITECTURE]
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-Os", "-Wall", "-Wextra", "-Werror", "-static", "-s")
# Programs that nothing here calls, and what is for people to read.
LEFT_OUT = (
    "usr/share/*", "usr/lib/*/perl*", "usr/lib/*/libperl*", "usr/lib/*/gconv", "usr/bin/perl*", "usr/bin/*5.4*",
    "usr/bin/ctr", "usr/bin/containerd-stress", "usr/bin/containerd-shim", "usr/bin/containerd-shim-runc-v1",
    "usr/bin/scalar", "usr/lib/git-core/scalar", "var/cache/*", "var/lib/apt", "var/lib/dpkg", "dev/*",
)  # fmt: skip
KEPT = ("usr/share/git-core", "usr/share/base-files")
PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
GROUP = "root:x:0:\ndocker:x:101:\nnogroup:x:65534:\n"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def cache_directory() -> Path:
    base = os.environ.get("HYPER_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "hyper"
    )
    return Path(base) / "builder"


def packages() -> list[str]:
    """Debian's, as the file beside this one lists them."""
    lines = (HERE / "packages").read_text().splitlines()
    return [p for line in lines if not line.startswith("#") for p in line.split()]


def key() -> str:
    """Names an image by everything of ours that goes into it."""
    settings = (SUITE, REVISION, ARCHITECTURE, packages(), FLAGS, LEFT_OUT, KEPT, PASSWD, GROUP)
    digest = hashlib.sha256(repr(settings).encode())
    for name in ("src/relay.c", "init"):
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()[:24]


def unpack(root: Path) -> None:
    """The packages below `root`, less what nothing of them needs here."""
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=extract", f"--architectures={ARCHITECTURE}",
         f"--include={','.join(packages())}", SUITE, root], check=True,
    )  # fmt: skip
    certificates = sorted((root / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    bundle = "".join(path.read_text() for path in certificates)
    for pattern in LEFT_OUT:
        for path in root.glob(pattern):
            if str(path.relative_to(root)) in KEPT:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    (root / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
    (root / "etc/ssl/certs/ca-certificates.crt").write_text(bundle)


def complete(root: Path) -> None:
    """What the packages' scripts would have made, and our own two programs."""
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    listed = subprocess.run([root / "usr/bin/busybox", "--list"], capture_output=True, text=True, check=True)
    for applet in listed.stdout.split():
        if not any((root / d / applet).is_symlink() or (root / d / applet).exists() for d in ("usr/bin", "usr/sbin")):
            (root / "usr/bin" / applet).symlink_to("busybox")
    shutil.copy2(HERE / "init", root / "usr/sbin/builder")
    (root / "usr/sbin/builder").chmod(0o755)
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", TARGET, *FLAGS]
    subprocess.run([*compiler, HERE / "src/relay.c", "-o", root / "usr/sbin/relay"], check=True)


class Counter(io.RawIOBase):
    """Writes to a file, and knows the digest of what it wrote."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self._out.write(data)
        return len(data)


def write_layer(root: Path, path: Path) -> str:
    """The tree as a compressed tar; the digest of the tar itself."""
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 1, file, mtime=0) as packed:
        plain = Counter(packed)  # type: ignore[arg-type]
        with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            tar.add(root, ".")
    return f"sha256:{plain.digest.hexdigest()}"


def write_archive(layer: Path, diff_id: str, name: str, path: Path) -> None:
    """An OCI layout in a tar, with one image of that name."""
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    config = {
        "created": created, "architecture": ARCHITECTURE, "os": "linux",
        "config": {"Entrypoint": ["builder"], "Env": [f"PATH={PATH}"], "Volumes": {"/var/lib/docker": {}}},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": created, "created_by": f"Debian {SUITE}: {' '.join(packages())}"}],
    }  # fmt: skip
    with open(layer, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = layer.stat().st_size
    kind = "application/vnd.oci.image"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(layer, f"blobs/sha256/{digest}", filter=anonymous)
        described = blob(tar, config)
        manifest = blob(tar, {
            "schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json",
            "config": {"mediaType": f"{kind}.config.v1+json", **described},
            "layers": [{"mediaType": f"{kind}.layer.v1.tar+gzip", "digest": f"sha256:{digest}", "size": size}],
        })  # fmt: skip
        entry = {"mediaType": f"{kind}.manifest.v1+json", **manifest,
                 "annotations": {"org.opencontainers.image.ref.name": name}}  # fmt: skip
        member(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
        member(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')


def anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Whoever builds it is nobody's business."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def blob(tar: tarfile.TarFile, document: object) -> dict[str, object]:
    """Add a document; its digest and size."""
    data = json.dumps(document).encode()
    digest = hashlib.sha256(data).hexdigest()
    member(tar, f"blobs/sha256/{digest}", data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


@contextlib.contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="making-", dir=parent) as directory:
        yield Path(directory)


def build() -> Path:
    """The archive; made when there is none of these contents, which takes a minute, root and Debian's mirrors."""
    home = cache_directory() / key()
    if (home / "image.tar").exists():
        return home / "image.tar"
    begin = time.monotonic()
    print(f"hyperbuilder: putting together Debian's dockerd ({SUITE})", flush=True)
    with scratch(home.parent) as directory:
        root, made = directory / "root", directory / "made"
        made.mkdir()
        unpack(root)
        complete(root)
        diff_id = write_layer(root, directory / "layer.tar.gz")
        name = f"localhost/hypercontainer/builder:{home.name}"
        write_archive(directory / "layer.tar.gz", diff_id, name, made / "image.tar")
        (made / "builder.json").write_text(json.dumps({"image": name, "suite": SUITE}))
        shutil.rmtree(home, ignore_errors=True)
        made.rename(home)
    print(f"hyperbuilder: made in {time.monotonic() - begin:.0f} s", flush=True)
    return home / "image.tar"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the image of the builder.")
    parser.parse_args()
    print(f"hyperbuilder: {build()}")
