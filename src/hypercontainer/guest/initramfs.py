# SPDX-License-Identifier: Apache-2.0
"""The initramfs: one file, /init, in a "newc" cpio archive.

Documentation/driver-api/early-userspace/buffer-format.rst of Linux has the format.
"""

from __future__ import annotations

import functools
import hashlib
import platform
import subprocess
from pathlib import Path

from ..errors import Unavailable
from ..sys.files import write_atomically

BINARIES = Path(__file__).parent / "bin"


def hyperstart_path(machine: str | None = None) -> Path:
    """The packaged hyperstart for a machine (`uname -m`).

    :raise Unavailable: when this installation has none.
    """
    path = BINARIES / f"hyperstart-{machine or platform.machine()}"
    if not path.exists():
        raise Unavailable(f"no hyperstart for {path.name.removeprefix('hyperstart-')} in this installation",
                          hint="run `make setup` in the source tree, or reinstall the package")  # fmt: skip
    return path


@functools.cache
def hyperstart_version(path: Path) -> str:
    """What the binary says of itself, "" when it cannot run here."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return ""
    return done.stdout.strip().removeprefix("hyperstart ")


@functools.cache
def tsc_khz() -> int:
    """The rate of this host's time stamp counter, which hyperstart measures in 50 ms; 0 where there is none."""
    try:
        done = subprocess.run([hyperstart_path(), "--tsc-khz"], capture_output=True, text=True, timeout=10, check=True)
        return int(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError, Unavailable):
        return 0


def _entry(name: str, mode: int, data: bytes, inode: int) -> bytes:
    raw = name.encode() + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
    head = b"070701" + b"".join(b"%08X" % f for f in fields) + raw
    head += bytes(-len(head) % 4)
    return head + data + bytes(-len(data) % 4)


def build(init: bytes) -> bytes:
    """An archive whose only program is /init; /dev/console is the kernel's to open."""
    archive = _entry("init", 0o100755, init, 1) + _entry("TRAILER!!!", 0, b"", 0)
    return archive + bytes(-len(archive) % 512)


def cached(directory: Path, machine: str | None = None) -> Path:
    """The initramfs of the packaged hyperstart for a machine (`uname -m`), written once per content."""
    init = hyperstart_path(machine).read_bytes()
    path = directory / f"initramfs-{hashlib.sha256(init).hexdigest()[:16]}.cpio"
    if not path.exists():
        write_atomically(path, build(init))
    return path
