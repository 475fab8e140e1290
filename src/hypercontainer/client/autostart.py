# SPDX-License-Identifier: Apache-2.0
"""Starting hyperd when none runs on the default socket."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from pathlib import Path

from ..errors import Unavailable
from .transport import Connection


def connect_or_start(path: str) -> Connection:
    """Connect; start a daemon when nobody listens.

    :raise Unavailable: when it does not come up, with what it said.
    """
    try:
        return Connection(path)
    except Unavailable:
        start()
    return Connection(path)


_TIMEOUT = 60.0  # seconds until a daemon must answer
_REAP_TIMEOUT = 5.0  # seconds for the end of a daemon that gave up
# It goes on when this process ends: kept, so that nobody takes it for one that was forgotten.
_started: list[subprocess.Popen[bytes]] = []


def _log_file() -> Path:
    if os.geteuid() == 0:
        return Path("/var/log/hyper/hyperd.log")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "hyper/hyperd.log"


def start() -> None:
    """Start one, and wait until it answers.

    :raise Unavailable: when it does not come up, with what it said.
    """
    log = _log_file()
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    begin = log.stat().st_size if log.exists() else 0
    ours, theirs = os.pipe()
    with (
        open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab") as output,
        os.fdopen(ours, "rb") as ready,
    ):
        os.fchmod(output.fileno(), 0o600)  # one of an earlier version may be open to all
        command = [sys.executable, "-m", "hypercontainer.hyperd", "--ready-fd", str(theirs)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[theirs],
            start_new_session=True,
            cwd="/",
        )
        os.close(theirs)
        if not select.select([ready], [], [], _TIMEOUT)[0]:
            process.kill()
            process.wait(_REAP_TIMEOUT)
            raise Unavailable(f"hyperd has not come up within {_TIMEOUT:g} s", hint=f"see {log}")
        if ready.read() == b"ready":
            _started.append(process)
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_REAP_TIMEOUT)
            said = log.read_bytes()[begin:].decode(errors="replace").strip().splitlines()
            reason = said[-1].removeprefix("hyperd: ") if said else "no message"
            raise Unavailable(f"hyperd could not be started: {reason}", hint=f"see {log}, and `hyperd --help`")
