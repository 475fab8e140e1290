# SPDX-License-Identifier: Apache-2.0
"""The builder's dockerd, run on this host from the builder's own image, in namespaces of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

from hyperbuilder import build as hyperbuilder

_BEGIN = 120.0  # seconds until it listens, on a machine that has other things to do
# Its root is a mount of its own, as runc and the older builder want it.
_INIT = """
set -e
mount --bind {root} {root}
mount -t proc proc {root}/proc
mount -t tmpfs tmpfs {root}/run
mount -t tmpfs tmpfs {root}/tmp
mount --rbind /sys {root}/sys
mount --rbind /dev {root}/dev
ip link set lo up
cd {root}
pivot_root . old
exec chroot . sh -c 'umount -l /old && exec dockerd --host=unix:///socket/docker.sock --data-root=/var/lib/docker \
    --exec-root=/run/docker --storage-driver=overlay2 --iptables=false --ip6tables=false --ip-masq=false \
    --log-level=warn'
"""


@contextlib.contextmanager
def dockerd(directory: Path) -> Iterator[str]:
    """It runs, with its files in `directory`; what DOCKER_HOST is for it. It has no network but its own loopback."""
    root = directory / "root"
    _unpack(hyperbuilder.build(), root)
    for name in ("socket", "old"):
        (root / name).mkdir()
    (root / "var/lib/docker").mkdir(parents=True, exist_ok=True)
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", _INIT.format(root=root)]
    with open(directory / "dockerd.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    host = f"unix://{root}/socket/docker.sock"
    try:
        _wait(process, host, directory / "dockerd.log")
        yield host
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _unpack(archive: Path, root: Path) -> None:
    """The one layer of the builder's image."""
    root.mkdir()
    with tarfile.open(archive) as tar:
        layer = max(tar.getmembers(), key=lambda member: member.size)
        packed = tar.extractfile(layer)
        assert packed
        with tarfile.open(fileobj=packed, mode="r|gz") as tree:
            tree.extractall(root, filter="fully_trusted")


def _wait(process: subprocess.Popen[bytes], host: str, log: Path) -> None:
    end = time.monotonic() + _BEGIN
    while docker(host, "version", "--format", "{{json .Server.Version}}", check=False).returncode:
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"dockerd does not run outside: {log.read_text()[-2000:]}")
        time.sleep(0.2)


def docker(host: str, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """Docker's client, of that dockerd."""
    done = subprocess.run(["docker", *map(str, command)], env={**os.environ, "DOCKER_HOST": host}, capture_output=True)
    if check and done.returncode:
        raise RuntimeError(f"docker {json.dumps(list(map(str, command)))}: {done.stderr.decode(errors='replace')}")
    return done
