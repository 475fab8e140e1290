# SPDX-License-Identifier: Apache-2.0
"""Directories of the host for a pod: one tree per pod, served by virtiofsd.

The tree exists in a mount namespace of the server's own: nothing is mounted on
the host, and what is read-only is so before the server sees it. virtiofsd makes
it its root. QEMU serves none: it would need rights over files for that, with the whole host in view.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import InvalidState, NotFound, Unsupported
from ..sys.confine import enter, entrances
from ..sys.process import command_line

TAG = "share"
SERVER_LOG = "server.log"  # in the machine's directory
_SCRIPT = Path(__file__).with_name("share.sh")
# Debian 12 has it beside QEMU's other helpers; the Rust one of later releases is there too.
_PLACES = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd")


@dataclass(frozen=True)
class Entry:
    """A directory or file to share."""

    path: Path
    read_only: bool


def find_virtiofsd() -> str | None:
    """The daemon's path, None where it is not installed."""
    return shutil.which("virtiofsd") or next((p for p in _PLACES if os.access(p, os.X_OK)), None)


def check(entries: list[Entry]) -> None:
    """:raise NotFound: when one does not exist."""
    for entry in entries:
        if not entry.path.exists():
            raise NotFound(f"the volume's source {entry.path} does not exist", hint="create it, or correct the path")


def _namespaces(*, root: bool) -> list[str]:
    if root:
        return ["unshare", "--mount", "--propagation", "private", "--"]
    # The user is root there, and the ids of /etc/subuid are the others.
    auto = ["--map-auto"] if shutil.which("newuidmap") and _has_subids() else []
    return ["unshare", "--user", "--map-root-user", *auto, "--mount", "--propagation", "private", "--"]


def _has_subids() -> bool:
    import getpass

    with contextlib.suppress(OSError, KeyError):
        names = (getpass.getuser(), str(os.getuid()))
        return any(line.split(":")[0] in names for line in Path("/etc/subuid").read_text().splitlines())
    return False


def launcher(tree: Path, entries: list[Entry], *, root: bool) -> list[str]:
    """What is put before a command so that it finds the entries in `tree`."""
    pairs = [word for e in entries for word in ("ro" if e.read_only else "rw", str(e.path))]
    return [*_namespaces(root=root), "/bin/sh", str(_SCRIPT), str(tree), *pairs, "--"]


def require_virtiofsd(*, allowed: bool) -> str:
    """The daemon's path.

    :raise Unsupported: it is not installed, or the configuration does not allow it.
    """
    if not allowed:
        raise Unsupported(
            "directories of the host are switched off (virtiofs = false)", hint="use a volume of the driver block"
        )
    if binary := find_virtiofsd():
        return binary
    raise Unsupported(
        "directories of the host need virtiofsd, which is not installed",
        hint="install the package virtiofsd (Debian 12: qemu-system-common), or use a volume of the driver block",
    )


def start_virtiofsd(
    binary: str, directory: Path, entries: list[Entry], control_groups: Sequence[Path] = (), *, root: bool
) -> socket.socket:
    """Serve the entries, in these groups; the socket for the hypervisor. The daemon ends when that is closed.

    :raise InvalidState: when it does not start, with its words.
    """
    tree, path, log = directory / "share", directory / "virtiofs.sock", directory / SERVER_LOG
    tree.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener, open(log, "wb") as output:
        listener.bind(str(path))
        listener.listen(1)
        fd = listener.fileno()
        serve = [binary, f"--fd={fd}", "-o", f"source={tree},cache=auto,xattr,announce_submounts,modcaps=-mknod"]
        args = [*launcher(tree, entries, root=root), *serve]
        with entrances(control_groups) as groups:
            child = subprocess.Popen(
                args, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=[fd], start_new_session=True,
                preexec_fn=partial(enter, groups),
            )  # fmt: skip
    child.returncode = 0  # it ends with the machine, which may outlive us
    ours = socket.socket(socket.AF_UNIX)
    try:
        ours.connect(str(path))
    except OSError as error:
        ours.close()
        raise InvalidState(
            f"virtiofsd could not be started: {log.read_text(errors='replace').strip() or command_line(args)}"
        ) from error
    return ours
