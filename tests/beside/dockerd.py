# SPDX-License-Identifier: Apache-2.0
"""Debian's dockerd, started for a comparison: in namespaces of its own, with the builder's image as its root.

It sees no network but its own bridges, and of this host's files only the directory of the comparison, which has its
own path there too. Its control groups lie below one that goes with it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

_DEADLINE = 60.0  # seconds
_GROUPS = Path("/sys/fs/cgroup")
_START = """set -e
ip link set lo up
mount --bind {root} {root}
mount -t proc proc {root}/proc
mount -t sysfs sysfs {root}/sys
mount --rbind /sys/fs/cgroup {root}/sys/fs/cgroup
mount --rbind /dev {root}/dev
mount -t tmpfs tmpfs {root}/tmp
mount -t tmpfs tmpfs {root}/run
mkdir -p {root}{place}
mount --bind {place} {root}{place}
for name in iptables ip6tables; do ln -sf xtables-nft-multi {root}/usr/sbin/$name; done
echo 1 > /proc/sys/net/ipv4/ip_forward
cd {root}
pivot_root . .
umount -l .
cd /
exec docker-init -s -- dockerd --host=unix://{place}/docker.sock --data-root={place}/data \
    --exec-root=/run/docker --userland-proxy=false --storage-driver=overlay2 --cgroup-parent={group} --log-level=warn
"""


def unpack(archive: Path, root: Path) -> None:
    """The one layer of the builder's image."""
    root.mkdir()
    with tarfile.open(archive) as image:
        layer = max(image.getmembers(), key=lambda m: m.size)
        with tarfile.open(fileobj=image.extractfile(layer)) as files:
            files.extractall(root, filter="fully_trusted")


@contextlib.contextmanager
def serving(archive: Path, place: Path) -> Iterator[Path]:
    """The socket of a dockerd that answers; it and all that it started end with the block."""
    root, group = place.parent / "root", f"hyper-compare-{os.getpid()}"
    unpack(archive, root)
    script = _START.format(root=root, place=place, group=group)
    # Process 1 of a PID namespace is killed with who started it, and all else in there with it.
    command = ["unshare", "-m", "-n", "-p", "-f", "-C", "--kill-child", "--propagation", "private", "sh", "-c", script]
    with open(place / "dockerd.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    socket = place / "docker.sock"
    try:
        end = time.monotonic() + _DEADLINE
        while subprocess.run(["docker", "-H", f"unix://{socket}", "version"], capture_output=True).returncode:
            assert process.poll() is None and time.monotonic() < end, (place / "dockerd.log").read_text()
            time.sleep(0.1)
        yield socket
    finally:
        process.kill()
        process.wait(_DEADLINE)
        _forget(group)


def _forget(group: str) -> None:
    """Its control groups, innermost first; each when its last process has ended."""
    end = time.monotonic() + _DEADLINE
    while any((hierarchy / group).exists() for hierarchy in (_GROUPS, *_GROUPS.iterdir())):
        _remove(group)
        assert time.monotonic() < end, f"control groups {group} are in use"
        time.sleep(0.05)


def _remove(group: str) -> None:
    for hierarchy in (_GROUPS, *_GROUPS.iterdir()):
        top = hierarchy / group
        for path in [
            *sorted((p for p in top.rglob("*") if p.is_dir()), reverse=True),
            *([top] if top.is_dir() else []),
        ]:
            with contextlib.suppress(OSError):
                path.rmdir()
