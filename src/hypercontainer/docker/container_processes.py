# SPDX-License-Identifier: Apache-2.0
"""`top`: the processes of a container, with the titles that ps(1) of the host would have for the same arguments."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from datetime import UTC, datetime

from ..errors import InvalidArgument
from ..model.status import ProcessInfo

_UNKNOWN = "?"  # the guest does not tell it


def _user(p: ProcessInfo) -> str:
    """Names of users are the image's, which only its own programs read."""
    return "root" if p.uid == 0 else str(p.uid)


def _start(p: ProcessInfo) -> str:
    began = datetime.fromisoformat(p.started_at)
    return f"{began:%H:%M}" if (datetime.now(UTC) - began).days < 1 else f"{began:%b%d}"


def _seconds(p: ProcessInfo) -> int:
    return p.cpu_ms // 1000


def _clock(p: ProcessInfo) -> str:
    spent = _seconds(p)
    return f"{spent // 3600:02}:{spent // 60 % 60:02}:{spent % 60:02}"


def _elapsed(p: ProcessInfo) -> str:
    spent = max(0, int((datetime.now(UTC) - datetime.fromisoformat(p.started_at)).total_seconds()))
    days, hours = spent // 86400, spent // 3600 % 24
    minutes = f"{spent // 60 % 60:02}:{spent % 60:02}"
    if days:
        return f"{days}-{hours:02}:{minutes}"
    return f"{hours:02}:{minutes}" if hours else minutes


def _share(p: ProcessInfo) -> float:
    """Percent of a CPU since its start."""
    lived = (datetime.now(UTC) - datetime.fromisoformat(p.started_at)).total_seconds()
    return p.cpu_ms / 10 / lived if lived > 0 else 0.0


_Column = Callable[[ProcessInfo], str]
_FULL: dict[str, _Column] = {
    "UID": _user,
    "PID": lambda p: str(p.pid),
    "PPID": lambda p: str(p.ppid),
    "C": lambda p: str(int(_share(p))),
    "STIME": _start,
    "TTY": lambda p: _UNKNOWN,
    "TIME": _clock,
    "CMD": lambda p: p.command,
}
_BSD: dict[str, _Column] = {
    "USER": _user,
    "PID": lambda p: str(p.pid),
    "%CPU": lambda p: f"{_share(p):.1f}",
    "%MEM": lambda p: _UNKNOWN,
    "VSZ": lambda p: _UNKNOWN,
    "RSS": lambda p: _UNKNOWN,
    "TTY": lambda p: _UNKNOWN,
    "STAT": lambda p: _UNKNOWN,
    "START": _start,
    "TIME": lambda p: f"{_seconds(p) // 60}:{_seconds(p) % 60:02}",
    "COMMAND": lambda p: p.command,
}
_SHORT: dict[str, _Column] = {"PID": _FULL["PID"], "TTY": _FULL["TTY"], "TIME": _FULL["TIME"], "CMD": _FULL["CMD"]}
# Columns of -o by their names, with their titles (ps(1), "STANDARD FORMAT SPECIFIERS").
_NAMED: dict[str, tuple[str, _Column]] = {
    "pid": ("PID", _FULL["PID"]),
    "ppid": ("PPID", _FULL["PPID"]),
    "uid": ("UID", lambda p: str(p.uid)),
    "euid": ("EUID", lambda p: str(p.uid)),
    "user": ("USER", _user),
    "euser": ("EUSER", _user),
    "comm": ("COMMAND", lambda p: p.command.split(" ")[0].rpartition("/")[2]),
    "cmd": ("CMD", _FULL["CMD"]),
    "args": ("COMMAND", _FULL["CMD"]),
    "command": ("COMMAND", _FULL["CMD"]),
    "time": ("TIME", _clock),
    "cputime": ("TIME", _clock),
    "etime": ("ELAPSED", _elapsed),
    "stime": ("STIME", _start),
    "start": ("STARTED", _start),
    "pcpu": ("%CPU", _BSD["%CPU"]),
    "%cpu": ("%CPU", _BSD["%CPU"]),
    "tty": ("TT", _FULL["TTY"]),
}


def columns(arguments: str) -> list[tuple[str, _Column]]:
    """Titles, with what stands below them, for arguments of ps: `-ef`, `aux`, `-o pid,cmd` and the like.

    :raise InvalidArgument: no such arguments here, or no column with the PID.
    """
    words = shlex.split(arguments or "-ef")
    chosen: list[tuple[str, _Column]] = []
    while words:
        word = words.pop(0)
        if word in ("-o", "o", "-eo", "-axo", "axo") and words:
            chosen += [_named(name) for name in words.pop(0).split(",")]
        elif word.startswith("-o") and len(word) > 2:
            chosen += [_named(name) for name in word[2:].split(",")]
        elif word in ("-ef", "-f", "-Af"):
            chosen += _FULL.items()
        elif word in ("aux", "-aux", "u", "ux", "auxw", "auxww"):
            chosen += _BSD.items()
        elif word in ("-e", "-A"):
            chosen = chosen or list(_SHORT.items())
        else:
            raise InvalidArgument(f"ps arguments {arguments!r} are not known here: give -ef, aux or -o with columns")
    if not any(title == "PID" for title, _ in chosen):
        raise InvalidArgument("Couldn't find PID field in ps output")
    return chosen


def _named(text: str) -> tuple[str, _Column]:
    name, equals, title = text.partition("=")
    if name not in _NAMED:
        raise InvalidArgument(f"ps has no column {name!r} here: known are {', '.join(sorted(_NAMED))}")
    return (title, _NAMED[name][1]) if equals else _NAMED[name]
