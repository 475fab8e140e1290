# SPDX-License-Identifier: Apache-2.0
"""A process gives up what it will not need before it looks at what strangers made."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000  # linux/sched.h
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Confinement:
    """What a process keeps; sizes in bytes."""

    uid: int  # used by root only
    gid: int
    memory: int  # of address space, over what it has already
    file_size: int
    cpu: int  # seconds, of all its threads together
    files: int  # highest number of a descriptor
    threads: int  # of all processes of that uid; root's processes only


def confine(what: Confinement) -> None:
    """Another user, no network, no way to more rights, limits, death with the parent; cannot be undone.

    Without root it does what is possible then. Call it before the first thread begins.

    :raise OSError: when root cannot become another user.
    """
    root = os.geteuid() == 0
    # Refused in many containers, and without user namespaces; the rest holds all the same.
    _libc.unshare(_CLONE_NEWNET | _CLONE_NEWIPC | (0 if root else _CLONE_NEWUSER))
    if root:
        os.setgroups([])
        os.setresgid(what.gid, what.gid, what.gid)
        os.setresuid(what.uid, what.uid, what.uid)
        _limit(resource.RLIMIT_NPROC, what.threads)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Be killed when the parent dies, however it dies; a change of the user would have undone it.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    _limit(resource.RLIMIT_AS, used + what.memory)
    _limit(resource.RLIMIT_FSIZE, what.file_size)
    _limit(resource.RLIMIT_CPU, what.cpu)
    _limit(resource.RLIMIT_NOFILE, what.files)
    _limit(resource.RLIMIT_CORE, 1)  # byte: 0 does not keep a core from a program (core(5))
    os.umask(0o077)
    os.chdir("/")


def _limit(which: int, value: int) -> None:
    """Never above what is in force already."""
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(which, (value, value))


def entrance(directory: Path) -> Path:
    """The file of a group's directory in which a process with one thread writes 0, to be in the group.

    In version 1 that is `tasks`: for that the kernel takes no lock against all forks, as it does for `cgroup.procs`;
    to get it takes 10 ms and more.
    """
    tasks = directory / "tasks"
    return tasks if tasks.exists() else directory / "cgroup.procs"
