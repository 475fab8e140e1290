# SPDX-License-Identifier: Apache-2.0
"""What holds for a jailed process, seen from outside: by /proc, as proc(5) describes it, not by what it was told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..model.host import Check
from ..model.signals import CAPABILITIES
from ..sys import users
from . import hierarchies

_SPACES = ("mnt", "pid", "ipc", "uts", "cgroup", "net")
_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_OWN = ("tmpfs", "proc")  # file systems that a jail mounts itself
_FILTER = "2"  # SECCOMP_MODE_FILTER
_NO_GROUPS = "`hyperctl doctor` says what this host lacks: see `control_groups` in hyperd's configuration"
_OFF = "the jail is off, or the host forbids it: see `jail` in hyperd's configuration"


@dataclass(frozen=True)
class Grants:
    """What a hypervisor has that others have not, since it cannot do without; it is told beside the promise."""

    capabilities: frozenset[int] = frozenset()  # linux/capability.h
    places: tuple[str, ...] = ()  # in its root: directories of its machine's own, with what is in them
    devices: frozenset[str] = frozenset()  # names in its /dev
    host_network: bool = False
    readable: bool = False  # by its own user, whom nobody else has

    def beside(self) -> dict[str, str]:
        """Of each check that has to do with them, what is allowed."""
        said = {
            "capabilities": ", ".join(f"CAP_{CAPABILITIES[number]}" for number in sorted(self.capabilities)),
            "root": ", ".join(self.places),
            "devices": ", ".join(sorted(self.devices)),
            "namespaces": "the host's network" if self.host_network else "",
            "memory": "a user of its own" if self.readable else "",
        }
        return {name: text for name, text in said.items() if text}


NOTHING = Grants()


@dataclass(frozen=True)
class Seen:
    """A process's files below /proc, and those of the daemon that started it."""

    process: Path
    daemon: Path = Path("/proc/self")
    grants: Grants = NOTHING

    def status(self, key: str) -> list[str]:
        lines = (self.process / "status").read_text().splitlines()
        return next((line.split()[1:] for line in lines if line.startswith(f"{key}:")), [])

    def mounts(self) -> Iterator[tuple[str, str, str, set[str]]]:
        """Path of the host's file system, place, kind and flags of each."""
        for line in (self.process / "mountinfo").read_text().splitlines():
            first, _, second = line.partition(" - ")
            words = first.split()
            yield words[3], words[4], second.split()[0], set(words[5].split(","))


def examine(seen: Seen, *, root: bool) -> list[Check]:
    """One check for each promise; `root` whether hyperd is."""
    checks: tuple[tuple[str, Callable[[Seen], str], str], ...] = (
        ("user", _user if root else _user_namespace, "each hypervisor has a user of its own"),
        ("capabilities", _capabilities, "it has none, and can get none"),
        ("new privileges", _privileges, "what it executes gives it none"),
        ("system calls", _filter, "a filter is in force"),
        ("namespaces", _namespaces, ", ".join(_SPACES)),
        ("root", _root, "read-only files of its own, nothing else of the host"),
        ("devices", _devices, "only its own"),
        ("descriptors", _descriptors, "no directory is among them"),
        # A user's is in a namespace that is the user's own, who may look into it as into all that is theirs.
        *((("memory", _memory, "neither its user nor a core shows it"),) if root else ()),
        ("limits", _limits, "no core, few descriptors"),
        ("control group", _control_group, "one of its own, with limits of processors, memory and processes"),
    )
    return [_checked(seen, *check) for check in checks]


def _checked(seen: Seen, name: str, check: Callable[[Seen], str], promise: str) -> Check:
    try:
        trouble = check(seen)
    except OSError as error:
        trouble = f"it cannot be seen: {error.strerror}"
    hint = _NO_GROUPS if name == "control group" else _OFF
    if allowed := seen.grants.beside().get(name):
        promise += f"; but for {allowed}, which its driver takes"
    return Check(name=f"jail: {name}", status="fail" if trouble else "ok", found=trouble or promise,
                 hint=hint if trouble else "")  # fmt: skip


def _user(seen: Seen) -> str:
    numbers = set(seen.status("Uid") + seen.status("Gid"))
    user = int(seen.status("Uid")[0])
    if len(numbers) != 1 or not users.given_out(user):
        return f"it runs as {', '.join(sorted(numbers))}, which is not of the range of `users`"
    others = [p.name for p in _processes(seen) if _runs_as(p, user)]
    return f"process {others[0]} has the same user" if others else ""


def _processes(seen: Seen) -> Iterator[Path]:
    for path in seen.process.parent.iterdir():
        if path.name.isdecimal() and path != seen.process:
            yield path


def _runs_as(process: Path, user: int) -> bool:
    try:
        return Seen(process).status("Uid")[:1] == [str(user)]
    except OSError:  # it has ended
        return False


def _user_namespace(seen: Seen) -> str:
    return "" if _differs(seen, "user") else "it is in hyperd's user namespace"


def _capabilities(seen: Seen) -> str:
    allowed = sum(1 << number for number in seen.grants.capabilities)
    found = [name for name in _SETS if int(seen.status(name)[0], 16) & ~allowed]
    few = "those alone" if allowed else "empty"
    return f"{', '.join(found)} are not {few}" if found else ""


def _privileges(seen: Seen) -> str:
    return "" if seen.status("NoNewPrivs") == ["1"] else "they are not refused"


def _filter(seen: Seen) -> str:
    return "" if seen.status("Seccomp") == [_FILTER] else "there is no filter"


def _differs(seen: Seen, space: str) -> bool:
    return os.readlink(seen.process / "ns" / space) != os.readlink(seen.daemon / "ns" / space)


def _namespaces(seen: Seen) -> str:
    own = [space for space in _SPACES if space != "net" or not seen.grants.host_network]
    shared = [space for space in own if not _differs(seen, space)]
    return f"{', '.join(shared)}: hyperd's own" if shared else ""


def _root(seen: Seen) -> str:
    places = [
        (source, place, flags) for source, place, kind, flags in seen.mounts()
        if kind not in _OWN and not _granted(seen, place)
    ]  # fmt: skip
    if any(place == "/" for _, place, _ in places):
        return "it sees the host's"
    writable = [place for _, place, flags in places if "ro" not in flags and not place.startswith("/dev/")]
    directories = [place for _, place, _ in places if (seen.process / "root" / place.lstrip("/")).is_dir()]
    if writable or directories:
        return f"it has {', '.join(writable + directories)} of the host"
    open_ = [
        place for _, place, kind, flags in seen.mounts()
        if kind == "tmpfs" and "ro" not in flags and not _granted(seen, place)
    ]  # fmt: skip
    return f"it may write to {', '.join(open_)}" if open_ else ""


def _granted(seen: Seen, place: str) -> bool:
    return any(f"{place}/".startswith(f"{top}/") for top in seen.grants.places)


def _devices(seen: Seen) -> str:
    found = set(os.listdir(seen.process / "root/dev")) - {"null", "urandom", "kvm"} - seen.grants.devices
    return f"it has {', '.join(sorted(found)[:5])}..." if found else ""


def _descriptors(seen: Seen) -> str:
    found = [os.readlink(p) for p in (seen.process / "fd").iterdir() if p.is_dir()]
    return f"it has {', '.join(found)}" if found else ""


def _memory(seen: Seen) -> str:
    """Files of an undumpable process below /proc are root's, whosever it is."""
    if seen.grants.readable:
        return ""
    user, owner = int(seen.status("Uid")[0]), (seen.process / "environ").stat().st_uid
    return "its user may look into it" if user == owner else ""


def _limits(seen: Seen) -> str:
    lines = (seen.process / "limits").read_text().splitlines()
    core = next(line for line in lines if line.startswith("Max core file size"))
    return "" if core.split()[4:6] == ["0", "0"] else "it may leave a core"


def _control_group(seen: Seen) -> str:
    mounts = (seen.daemon / "mountinfo").read_text()
    theirs, ours = (hierarchies.find((p / "cgroup").read_text(), mounts, "") for p in (seen.process, seen.daemon))
    of_ours = {c: h.group for h in ours for c in h.controllers}
    own = [h for h in theirs if not any(of_ours.get(c) == h.group for c in h.controllers)]
    missing = [name for c, name in hierarchies.NAMES.items() if not any(c in h.controllers for h in own)]
    missing += [hierarchies.NAMES[c] for h in own for c in hierarchies.unlimited(h)]
    return f"{', '.join(missing)}: without a limit or an account of its own" if missing else ""
