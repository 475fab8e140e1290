# SPDX-License-Identifier: Apache-2.0
"""start, kill, delete, pause, resume, update."""

from __future__ import annotations

import contextlib
import os
import signal
from argparse import Namespace
from typing import Any

from ..client.base import container_route
from ..errors import HyperError, InvalidArgument, InvalidState, NotFound
from .complaints import complain
from .daemon import START, Daemon
from .hooks import longest, run_each
from .records import Record, Records, stands
from .states import state_of, status_of


def start(args: Namespace, daemon: Daemon, records: Records) -> int:
    """Its machine boots, if it does not run, and its program begins."""
    record = records.get(args.id)
    status = status_of(record, daemon)
    if status != "created":
        raise InvalidState(f"cannot start a container that is {status}: {args.id}")
    try:
        daemon.call("POST", container_route(record.container, "/start"), limit=START + longest(record.hooks))
    except HyperError:
        end(record.pid)
        raise
    record = records.change(record, started=True)
    _tell(args, record, "poststart", "running")
    return 0


def _tell(args: Namespace, record: Record, kind: str, status: str) -> None:
    """Hooks of what has happened, whatever they say."""
    run_each(record.hooks.get(kind) or [], state_of(record, status), lambda text: complain(args, text, "warning"))


def kill(args: Namespace, daemon: Daemon, records: Records) -> int:
    """Of a container that has not started, what stands for it ends."""
    record, number = records.get(args.id), _signal(args.signal)
    status = status_of(record, daemon)
    if status == "stopped":
        if args.all:
            return 0
        raise InvalidState("container not running")
    if status == "created":
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, number)
        return 0
    daemon.call("POST", container_route(record.container, "/kill"), signal=str(number))
    return 0


def _signal(text: str) -> int:
    if text.isdecimal() and 0 < int(text) <= signal.SIGRTMAX:
        return int(text)
    name = text.upper()
    found = getattr(signal, name if name.startswith("SIG") else f"SIG{name}", None)
    if not isinstance(found, signal.Signals):
        raise InvalidArgument(f"unknown signal {text!r}")
    return int(found)


def delete(args: Namespace, daemon: Daemon, records: Records) -> int:
    """:raise InvalidState: it runs, and is not forced."""
    try:
        record = records.get(args.id)
    except NotFound:
        if not args.force:
            raise
        _remove_unfinished(args.id, daemon, records)
        return 0
    status = status_of(record, daemon)
    if status in ("running", "paused") and not args.force:
        raise InvalidState(f"cannot delete container {args.id} that is not stopped: {status}")
    remove(args, record, daemon, records)
    return 0


def _remove_unfinished(id_: str, daemon: Daemon, records: Records) -> None:
    """What its creation left that was killed before it had a record."""
    if not records.is_claimed(id_):
        return
    for route in ("/pods", "/containers"):
        with contextlib.suppress(NotFound):
            daemon.call("DELETE", f"{route}/{records.name_of(id_)}", force="1")
    records.remove(id_)


def remove(args: Namespace, record: Record, daemon: Daemon, records: Records) -> None:
    """Whatever it does."""
    with contextlib.suppress(NotFound):
        if record.owns_pod:
            daemon.call("DELETE", f"/pods/{record.pod}", force="1")
        else:
            daemon.call("DELETE", container_route(record.container), force="1")
    if stands(record):
        end(record.pid)
    records.remove(record.id)
    _tell(args, record, "poststop", "stopped")


def pause(args: Namespace, daemon: Daemon, records: Records) -> int:
    """Freeze it."""
    daemon.call("POST", container_route(records.get(args.id).container, "/pause"))
    return 0


def resume(args: Namespace, daemon: Daemon, records: Records) -> int:
    """Let it go on."""
    daemon.call("POST", container_route(records.get(args.id).container, "/unpause"))
    return 0


def update(args: Namespace, daemon: Daemon, records: Records) -> int:
    """What is not said stays; what is for who shares a kernel is passed over."""
    from . import translation
    from .files import read_object

    record = records.get(args.id)
    given: dict[str, Any] = read_object(args.resources) if args.resources else {}
    for name in ("memory", "cpu_quota", "pids_limit"):
        if getattr(args, name) == 0:  # runc takes it, and changes nothing
            raise InvalidArgument(f"--{name.replace('_', '-')} 0 is no limit that can be set", hint="-1 is none at all")
    if args.memory is not None:
        given["memory"] = {"limit": args.memory}
    if args.cpu_quota is not None:
        given["cpu"] = {"quota": args.cpu_quota, "period": args.cpu_period}
    if args.pids_limit is not None:
        given["pids"] = {"limit": args.pids_limit}
    limits = translation.limits_of(given)
    said = {"memory": "limit", "cpu": "quota", "pids": "limit"}
    names = {"memory": "memory", "cpu": "cpus", "pids": "pids"}
    change = {names[k]: limits[names[k]] for k, field in said.items() if (given.get(k) or {}).get(field)}
    if change:
        daemon.call("POST", container_route(record.container, "/update"), change)
    return 0


def end(pid: int) -> None:
    """What stands for a process ends, and that with it. Idempotent."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
