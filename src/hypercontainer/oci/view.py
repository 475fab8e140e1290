# SPDX-License-Identifier: Apache-2.0
"""What a stand-in shows who looks into its namespaces on this host, as into those of a container's init.

podman's `cp` and `top`, among others, enter the mount namespace of a container's process. So a stand-in has one of its
own, with the bundle's root as its root and the bundle's binds in it, and a PID namespace in which it is alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat

from ..errors import Unavailable

_NEWNS, _NEWUTS, _NEWIPC, _NEWPID, _NEWNET = 0x20000, 0x04000000, 0x08000000, 0x20000000, 0x40000000  # linux/sched.h
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _SLAVE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 19
_OPEN_TREE, _MOVE_MOUNT = 428, 429  # of all architectures
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CLONE, _RECURSIVE, _CWD, _EMPTY_PATH, _DETACH = 1, 0x8000, -100, 4, 2
_CHILD_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER

_libc = ctypes.CDLL(None, use_errno=True)
Bind = tuple[str, str, bool]  # source on this host, place in the container, whether it is read-only


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise Unavailable(f"{what}: {os.strerror(ctypes.get_errno())}", hint="hyper-runtime is for root")
    return result


def become_subreaper() -> None:
    """Whose father ends is a child of this process then."""
    _checked(_libc.prctl(_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def new_pids() -> None:
    """The next child is process 1 of a PID namespace of its own."""
    _checked(_libc.unshare(_NEWPID), "a PID namespace for the container's process")


def enter_network(namespace: str) -> None:
    """By its path."""
    with open(namespace) as there:
        _checked(_libc.setns(there.fileno(), 0), f"the network namespace {namespace}")


def enter_namespaces(network: str, hostname: str) -> None:
    """As the container's, with this host's files; `network` is a path, "" for a new one.

    What is mounted from here on is seen by nobody else.
    """
    if network:
        enter_network(network)
    flags = _NEWNS | _NEWUTS | _NEWIPC | (0 if network else _NEWNET)
    _checked(_libc.unshare(flags), "the container's namespaces")
    _mount(None, "/", None, _REC | _SLAVE)
    if hostname:
        name = os.fsencode(hostname)
        _checked(_libc.sethostname(name, len(name)), "the container's host name")


def _mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
    words = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    _checked(_libc.mount(*words, ctypes.c_ulong(flags), None), f"mounting on {target}")


def enter_root(rootfs: str, binds: list[Bind]) -> None:
    """From here on this process has nothing but the container's root.

    :raise Unavailable: it cannot be.
    """
    _checked(_libc.unshare(_NEWNS), "a mount namespace for the container's process")
    _mount(None, "/", None, _REC | _SLAVE)
    trees = [_tree(source) for source, _, _ in binds]
    _mount(rootfs, rootfs, None, _BIND | _REC)
    os.chdir(rootfs)
    _checked(_libc.syscall(_PIVOT_ROOT[os.uname().machine], b".", b"."), f"making {rootfs} the root")
    _checked(_libc.umount2(b".", _DETACH), "leaving this host's root")
    os.chdir("/")
    # Paths are the container's own from here on: no link in them leads out of it.
    for (_, target, read_only), tree in zip(binds, trees, strict=True):
        _put(tree, target, read_only=read_only)
    if os.path.isdir("/proc") and not os.path.islink("/proc"):
        _mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)


def _tree(source: str) -> int:
    words = (_CWD, os.fsencode(source), _CLONE | _RECURSIVE | os.O_CLOEXEC)
    return _checked(_libc.syscall(_OPEN_TREE, *words), f"binding {source}")


def _put(tree: int, target: str, *, read_only: bool) -> None:
    """A mount point that cannot be made is the machine's trouble, which says so when it starts."""
    with contextlib.suppress(OSError, Unavailable):
        if stat.S_ISDIR(os.fstat(tree).st_mode):
            os.makedirs(target, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.close(os.open(target, os.O_CREAT | os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o644))
        _checked(_libc.syscall(_MOVE_MOUNT, tree, b"", _CWD, os.fsencode(target), _EMPTY_PATH), target)
        if read_only:
            _mount(None, target, None, _BIND | _REMOUNT | _RDONLY)
    os.close(tree)


def find_program(name: str, path: str, cwd: str) -> bool:
    """Whether the container's root has it, as far as that can be told before it starts."""
    if "/" in name:
        return os.path.lexists(os.path.join(cwd, name))
    return any(os.path.lexists(os.path.join(cwd, directory, name)) for directory in path.split(":"))


def is_no_program(name: str, cwd: str) -> bool:
    """Whether a path leads to what nobody may execute: a directory, or a file without that right."""
    try:
        mode = os.stat(os.path.join(cwd, name)).st_mode if "/" in name else 0
    except OSError:
        return False
    return stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and not mode & 0o111)
