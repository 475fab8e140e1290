# SPDX-License-Identifier: Apache-2.0
"""Directories of the host for a pod: one tree per pod, served by virtiofsd.

The tree exists in a mount namespace of the server's own: nothing is mounted on
the host, and what is read-only is so before the server sees it. virtiofsd makes
it its root. QEMU serves none: it would need rights over files for that, with the whole host in view.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from ..errors import InvalidState, NotFound, Unavailable, Unsupported
from ..jail import helpers, jail, seccomp
from ..jail.binaries import binary as own_binary
from ..jail.jail import Order, Started
from ..sys import process, users
from ..sys.documents import UNREADABLE
from ..sys.files import write_atomically

TAG = "share"
SERVER_LOG, CARRIER_LOG = "server.log", "files.log"  # in the machine's directory
_SOCKET, _NOTE = "virtiofs.sock", "served.json"
_SCRIPT = Path(__file__).with_name("share.sh")
# Debian 12 has it beside QEMU's other helpers; the Rust one of later releases is there too.
_PLACES = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd")

TREE = "/share"  # in its jail
_LATE = "late"  # in the tree: what was added while the machine ran
_DESCRIPTORS = 1 << 20  # each file that a guest has open, or knows of, is one
# Over files of all owners: CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID, SETFCAP; and
# SETPCAP and SYS_CHROOT, which it gives up itself before it serves. linux/capability.h
_RIGHTS = frozenset({0, 1, 3, 4, 6, 7, 31, 8, 18})


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
    auto = ["--map-auto"] if users.have_subordinates() else []
    return ["unshare", "--user", "--map-root-user", *auto, "--mount", "--propagation", "private", "--"]


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


async def start_virtiofsd(
    binary: str, directory: Path, entries: list[Entry], control_groups: Sequence[Path] = (), *, root: bool
) -> tuple[socket.socket, Started]:
    """Serve the entries, in these groups; the socket for the hypervisor, and the server, which ends when it is closed.

    :raise InvalidState: when it does not start, with its words. :raise Unavailable: nor its jail.
    """
    path, log = directory / _SOCKET, directory / SERVER_LOG
    with socket.socket(socket.AF_UNIX) as listener, open(log, "wb") as output:
        listener.bind(str(path))
        listener.listen(1)
        fds = listener.fileno(), output.fileno()
        if helpers.jail().confines:
            order = _jailed(binary, entries, *fds)
        else:
            order = _plain(binary, directory, entries, *fds, root=root)
        started = await helpers.jail().spawn(replace(order, control_groups=tuple(control_groups)))
    helpers.reap(started)  # it ends with the machine, which may outlive us
    ours = socket.socket(socket.AF_UNIX)
    try:
        ours.connect(str(path))
    except OSError as error:
        ours.close()
        words = log.read_text(errors="replace").strip() or helpers.words(order)
        raise InvalidState(f"virtiofsd could not be started: {words}") from error
    return ours, started


async def serve(
    binary: str, directory: Path, entries: list[Entry], names: list[str], control_groups: Sequence[Path],
    open_stream: Callable[[], Awaitable[socket.socket]], *, user: int, root: bool,
) -> Started:  # fmt: skip
    """Serve the entries over a byte stream to a guest that has no device for them; the server, which ends with that.

    Whoever carries the messages is this `user`, where there is a jail. `names` are for `noted`.

    :raise InvalidState: when it does not start, with its words. :raise Unavailable: the same, or its jail, or the
    stream.
    """
    (directory / _SOCKET).unlink(missing_ok=True)  # of one that has ended
    asked, server = await start_virtiofsd(binary, directory, entries, control_groups, root=root)
    with asked, contextlib.ExitStack() as undo:
        # It ends by itself, but not at once: nobody shall go on with it meanwhile.
        undo.callback((directory / _NOTE).unlink, missing_ok=True)
        write_atomically(directory / _NOTE, msgspec.json.encode((server, names)))
        with await open_stream() as stream:
            await start_carrier(stream, asked, directory, control_groups, user)
        undo.pop_all()
    return server


def noted(directory: Path) -> tuple[Started, list[str]] | None:
    """Who serves already, and what: a daemon that died before it had written that into its records has begun it."""
    try:
        server, names = msgspec.json.decode((directory / _NOTE).read_bytes(), type=tuple[tuple[int, int], list[str]])
    except (OSError, *UNREADABLE):
        return None
    return (Started(*server), names) if process.start_time(server[0]) == server[1] else None


async def start_carrier(
    stream: socket.socket, server: socket.socket, directory: Path, control_groups: Sequence[Path], user: int
) -> None:
    """A process that carries messages between the two, and ends with either (hyperjail/files/main.c).

    :raise Unavailable: its jail does not start it.
    """
    fds = stream.fileno(), server.fileno()
    for sock in (stream, server):
        sock.setblocking(True)
    with open(directory / CARRIER_LOG, "wb") as output:
        order = _carrying(own_binary("hyperjail-files"), user, *fds, output.fileno())
        helpers.reap(await helpers.jail().spawn(replace(order, control_groups=tuple(control_groups))))


async def add(server: Started, entry: Entry) -> str:
    """One more entry for a tree that is served; its name there.

    :raise NotFound: it does not exist. :raise Unsupported: the jail cannot. :raise Unavailable: the server has ended.
    """
    check([entry])
    place = f"{_LATE}/{secrets.token_hex(8)}"  # one that was added, and not written down, is in nobody's way
    try:
        await helpers.jail().add(server, jail.Entry(entry.path, f"{TREE}/{place}", not entry.read_only))
    except Unavailable as error:
        raise Unavailable(
            f"{entry.path} cannot be added to the directories of a pod that runs: {error.message}",
            hint="stop the pod, and start it again",
        ) from error
    return place


async def remove(server: Started, place: str) -> None:
    """Serve no longer what `add` has added. Idempotent.

    :raise Unavailable: the server has ended, or the jail fails.
    """
    await helpers.jail().remove(server, f"{TREE}/{place}")


def _carrying(binary: Path, user: int, stream: int, server: int, output: int) -> Order:
    order = helpers.order(binary, str(stream), str(server), own_user=user)
    return replace(order, output=output, descriptors=(stream, server), dies_with_us=False)


def _serve(binary: str, listener: int, tree: str, *options: str) -> tuple[str, ...]:
    choices = ",".join((f"source={tree}", "cache=auto", "xattr", "announce_submounts", "modcaps=-mknod", *options))
    return binary, f"--fd={listener}", "-o", choices


def _jailed(binary: str, entries: list[Entry], listener: int, output: int) -> Order:
    """The tree is all that is to be seen but the server itself, which then makes it its root."""
    shown = tuple(jail.Entry(e.path, f"{TREE}/{number}", not e.read_only) for number, e in enumerate(entries))
    order = helpers.order(Path(binary), files=shown, limits=jail.Limits(descriptors=_DESCRIPTORS))
    return replace(
        order,
        args=(*_serve(binary, listener, TREE, "sandbox=chroot"), "--rlimit-nofile=0"),
        output=output,
        late=f"{TREE}/{_LATE}",
        descriptors=(listener,),
        capabilities=_RIGHTS,
        first_filter=seccomp.refusals(seccomp.REFUSED - {"chroot", "mknod", "mknodat"}),  # pipes are nodes, too
        settings="read",  # it looks at fs.file-max, though it shall not heed it
        subordinate=True,
        dies_with_us=False,
    )


def _plain(binary: str, directory: Path, entries: list[Entry], listener: int, output: int, *, root: bool) -> Order:
    tree = directory / "share"
    tree.mkdir(exist_ok=True)
    args = (*launcher(tree, entries, root=root), *_serve(binary, listener, str(tree)))
    return Order(
        args, os.geteuid(), output, descriptors=(listener,), environment={"PATH": os.environ.get("PATH", os.defpath)}
    )
