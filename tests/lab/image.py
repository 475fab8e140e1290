# SPDX-License-Identifier: Apache-2.0
"""A lab machine's disk, kernel and initramfs: Debian 12 by mmdebstrap, Python packages by pip. Cached by content."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from hypercontainer.sys.caches import cache_directory

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
SUITE, PYTHON = "bookworm", "3.11"
TESTERS = ("pytest", "pytest-asyncio", "pytest-timeout", "hypothesis", "ziglang", "jsonschema")
LOOKERS = ("py-spy",)
# The initramfs needs little: it is unpacked by an emulated processor.
MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "ext4")
OMITTED = ("man", "doc", "locale", "info")
SIZE = "12G"  # of the disk, sparse


@dataclass(frozen=True)
class Image:
    """Files that QEMU boots."""

    disk: Path
    kernel: Path
    initramfs: Path
    hypervisor: Path | None = None  # that boots the kernel


def packages(kind: str) -> list[str]:
    """Of Debian, for a machine of this kind: kvm or xen."""
    lines = [line for name in ("packages", f"packages-{kind}") for line in (HERE / name).read_text().splitlines()]
    return [p for line in lines if line[0] != "#" for p in line.split()]


def requirements() -> list[str]:
    """Python packages with the limits that the project gives them."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    dev = [r for r in project["optional-dependencies"]["dev"] if r.split(">")[0] in TESTERS]
    return [*project["dependencies"], *dev, *LOOKERS]


def key(kind: str) -> str:
    """Names an image by everything that goes into it; what mirrors offer by then does not."""
    digest = hashlib.sha256(repr((SUITE, packages(kind), requirements())).encode())
    for path in (Path(__file__), HERE / "init"):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:24]


def image(kind: str) -> Image:
    """The image, built when there is none of these contents; that takes some minutes, root and the network."""
    home = cache_directory("lab") / key(kind)
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="making-", dir=home.parent) as directory:
            made = Path(directory) / "image"
            made.mkdir()
            _build(kind, Path(directory) / "root", made)
            made.rename(home)
    return Image(home / "disk.img", home / "vmlinuz", home / "initrd.img", home / "xen" if kind == "xen" else None)


def _build(kind: str, root: Path, to: Path) -> None:
    _say(f"installing Debian {SUITE} and {len(packages(kind))} packages of it")
    hooks = [f"--essential-hook={_initramfs_hook()}"]
    omit = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in OMITTED]
    # Its mounts are in a namespace of their own: whoever tidies up after an end in its midst meets no /proc and /sys.
    alone = ("unshare", "--mount", "--propagation=private", "setpriv", "--pdeathsig=TERM")
    include = f"--include={','.join(packages(kind))}"
    _run(*alone, "mmdebstrap", "--quiet", "--variant=minbase", include, *hooks, *omit, SUITE, root)
    _say("installing Python packages")
    _install_python(root)
    shutil.copy2(HERE / "init", root / "init")
    (root / "init").chmod(0o755)
    for name in ("vmlinuz", "initrd.img"):
        shutil.copy2(next((root / "boot").glob(f"{name}-*")), to / name)
    if kind == "xen":  # it unpacks its dom0's kernel, and nobody unpacks it
        (to / "xen").write_bytes(gzip.decompress(next((root / "boot").glob("xen-*.gz")).read_bytes()))
    _say("making the disk")
    _run("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", root, to / "disk.img", SIZE)


def _initramfs_hook() -> str:
    """A shell command that makes the initramfs small; mmdebstrap gives it the root's directory."""
    modules = "".join(f"{m}\\n" for m in MODULES)
    settings = {"conf.d/lab": "MODULES=list\\n", "modules": modules}
    files = [f'printf "{text}" >"$1/etc/initramfs-tools/{name}"' for name, text in settings.items()]
    return " && ".join(['mkdir -p "$1/etc/initramfs-tools/conf.d"', *files])


def _install_python(root: Path) -> None:
    """Into a directory that the machine's Python looks at: its own pip is not needed, nor a virtual environment."""
    where = root / f"usr/local/lib/python{PYTHON}/dist-packages"
    platforms = [f"--platform=manylinux{v}_x86_64" for v in ("_2_34", "_2_28", "2014")]
    _run(
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:",
        f"--python-version={PYTHON}", *platforms, "--target", where, *requirements(),
    )  # fmt: skip
    (where / "lab.pth").write_text("/lab/tree/src\n")


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


def _say(text: str) -> None:
    print(f"lab: {text}", flush=True)
