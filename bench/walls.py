# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.walls`, as root: what stands around a pod's QEMU and around a container of podman with crun.

Both are looked at from outside, by /proc (proc(5)), while they sleep. What Firecracker's jailer does is not run: that
column is what its docs/jailer.md says.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .measure import run
from .peers import BUSYBOX, daemon, machines, namespace

_SPACES = ("mnt", "pid", "ipc", "uts", "cgroup", "net", "user")
_PATIENCE = 30.0  # seconds
# crun refuses a host that has control groups of both versions, so it is shown those of the first.
_ALONE = 'mount --make-rprivate / && { umount /sys/fs/cgroup/unified 2>/dev/null || :; } && exec "$@"'

JAILER = {
    "Uid": "`--uid`, as its caller gives it",
    "CapEff, CapPrm": "what is left by the change of the user: 0 for one that is not root",
    "CapBnd": "not changed",
    "NoNewPrivs": "not the jailer's; Firecracker's filters set it",
    "Seccomp": "not the jailer's; Firecracker's own filters, one per thread",
    "namespaces of its own": "mnt; pid with `--new-pid-ns`; net as `--netns` names one",
    "files in its root": "its copy of Firecracker, and what its caller puts there; owned by its user, may be written",
    "mounts": "one directory of the host (`pivot_root`, then `chroot`)",
    "other processes in its /proc": "no /proc",
    "/dev": "kvm, net/tun",
    "environment": "emptied",
    "descriptors at most": "2048, or `--resource-limit no-file`",
    "core at most": "not said",
    "its user may look into it": "not said",
    "control group": "one of its own, with the limits that its caller gives (`--cgroup`)",
}


def look(pid: int) -> dict[str, str]:
    """Each row of the table, for this process."""
    place = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
    limits = {line[:26].strip(): line[26:].split() for line in (place / "limits").read_text().splitlines()}
    mounts = _mounts(place)
    return {
        "Uid": status["Uid"].split()[0],
        "CapEff, CapPrm": ", ".join(_hex(status[name]) for name in ("CapEff", "CapPrm")),
        "CapBnd": _hex(status["CapBnd"]),
        "NoNewPrivs": status["NoNewPrivs"].strip(),
        "Seccomp": f"mode {status['Seccomp'].strip()}, filters: {status['Seccomp_filters'].strip()}",
        "namespaces of its own": ", ".join(space for space in _SPACES if _differs(place, space)),
        "files in its root": _files(place / "root"),
        "mounts": f"{len(mounts)}, not read-only: {', '.join(p for p, flags in mounts.items() if 'ro' not in flags)}",
        "other processes in its /proc": _processes(place / "root/proc"),
        "/dev": ", ".join(sorted(p.name for p in (place / "root/dev").iterdir())),
        "environment": f"{(place / 'environ').read_bytes().count(bytes(1))} variables",
        "descriptors at most": limits["Max open files"][1],
        "core at most": limits["Max core file size"][1],
        "its user may look into it": "yes" if _open_to_its_user(place) else "no",
        "control group": _groups(place),
    }


def _hex(text: str) -> str:
    return hex(int(text, 16)) if int(text, 16) else "0"


def _differs(place: Path, space: str) -> bool:
    return os.readlink(place / "ns" / space) != os.readlink(f"/proc/self/ns/{space}")


def _mounts(place: Path) -> dict[str, list[str]]:
    """Places and flags."""
    rows = [line.split() for line in (place / "mountinfo").read_text().splitlines()]
    return {row[4]: row[5].split(",") for row in rows}


def _files(root: Path) -> str:
    number = 0
    for directory, names, files in os.walk(root):
        if Path(directory) == root:
            names[:] = [name for name in names if name not in ("proc", "sys", "dev")]
        number += len(files)
    return f"{number} besides /proc, /sys and /dev; the root itself is {_writable(root)}"


def _writable(root: Path) -> str:
    return "read-only" if os.statvfs(root).f_flag & os.ST_RDONLY else "writable"


def _processes(proc: Path) -> str:
    return str(max(0, sum(path.name.isdecimal() for path in proc.iterdir()) - 1))


def _open_to_its_user(place: Path) -> bool:
    """Files of an undumpable process below /proc are root's, whosever it is; root may look into all."""
    user = int((place / "status").read_text().partition("Uid:")[2].split()[0])
    return user == 0 or (place / "environ").stat().st_uid == user


def _groups(place: Path) -> str:
    """In how many of the host's hierarchies it is in a group that this process is not in."""
    theirs, ours = ((p / "cgroup").read_text().splitlines() for p in (place, Path("/proc/self")))
    own = [line.split(":")[1] or "unified" for line in theirs if line not in ours]
    return f"one of its own: {', '.join(sorted(own))}" if own else "none of its own"


@contextlib.contextmanager
def container(directory: Path, source: str, space: str) -> Iterator[int]:
    """A busybox that sleeps, under podman and crun with their defaults; its process."""
    name = f"walls-{os.getpid()}"
    root, runroot = directory / "storage", directory / "run"
    run(["skopeo", "--insecure-policy", "copy", "-q", f"oci:{source}",
         f"containers-storage:[vfs@{root}+{runroot}]{BUSYBOX}"])  # fmt: skip
    podman = ["nsenter", f"--net=/run/netns/{space}", "unshare", "-m", "sh", "-c", _ALONE, "sh", "podman",
              "--root", str(root), "--runroot", str(runroot), "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
              "--runtime", "crun"]  # fmt: skip
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]  # where hard limits are low
    words = ["run", "--rm", "--network", "none", "--name", name, *limits, BUSYBOX, "sleep", "100000"]
    running = subprocess.Popen([*podman, *words])
    try:
        yield _process(running)
    finally:
        run([*podman, "kill", name])
        running.wait()


def _process(running: subprocess.Popen[bytes]) -> int:
    """The `sleep` that its containers' monitor has started."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if running.poll() is not None:
            raise RuntimeError(f"podman ended with {running.returncode}")
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if path.read_bytes() == b"sleep\x00100000\x00":
                    return int(path.parent.name)
        time.sleep(0.05)
    raise RuntimeError("podman's container did not start")


def table(columns: dict[str, dict[str, str]]) -> Iterator[str]:
    """As Markdown."""
    yield f"| | {' | '.join(columns)} |"
    yield "| --- " * (len(columns) + 1) + "|"
    for row in JAILER:
        yield f"| {row} | {' | '.join(column[row] for column in columns.values())} |"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="hyw") as name, namespace() as space:
        directory = Path(name)
        with daemon(directory / "hyper", space, "--network", "none") as hyper:
            hyper.ctl("run", "-d", "--name", "walls", "busybox", "sleep", "100000")
            ours = look(machines(hyper)[0])
            source = f"{hyper.root}/images:docker.io/library/busybox:latest"
            with container(directory, source, space) as pid:
                theirs = look(pid)
            hyper.ctl("rm", "-f", "walls")
        columns = {"QEMU of a pod": ours, "podman and crun": theirs, "Firecracker's jailer, as documented": JAILER}
        print(*table(columns), sep="\n")


if __name__ == "__main__":
    main()
