# SPDX-License-Identifier: Apache-2.0
"""create, start, run, kill, delete, pause, resume, update."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import re
import signal
from argparse import Namespace
from pathlib import Path
from typing import Any

from ..errors import HyperError, InvalidArgument, InvalidState, NotFound, Unsupported
from . import sandbox, translation
from .daemon import Daemon, container
from .files import read_object, write_pid
from .hooks import run_hooks
from .interfaces import interfaces_of
from .mounts import mounts_of
from .records import Record, Records, stands
from .stand_in import Looks, stand_in
from .states import state_of, status_of
from .terminal import open_terminal
from .view import become_subreaper

_NAME_MAX = 100
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # of a process that says none
Undo = contextlib.ExitStack


def create(args: Namespace, daemon: Daemon, records: Records) -> int:
    """Make the container, and what stands for it; or nothing of both."""
    if args.preserve_fds:
        raise Unsupported("open files of this host cannot be handed to a virtual machine (--preserve-fds)")
    bundle = Path(args.bundle).absolute()
    config = read_object(bundle / "config.json")
    translation.check(config)
    records.claim(args.id)
    with contextlib.ExitStack() as undo:
        undo.callback(records.remove, args.id)
        record = _make(config, bundle, args, daemon, records, undo)
        _stand(config, args, daemon, records, record, undo)
        undo.pop_all()
    return 0


def _make(
    config: dict[str, Any], bundle: Path, args: Namespace, daemon: Daemon, records: Records, undo: Undo
) -> Record:
    """The container in hyperd, and its pod where it has one of its own."""
    rootfs = os.path.join(bundle, config["root"]["path"])
    name = _name(args)
    other = sandbox.joined(config, records)
    spec = translation.container_of(config, bundle, rootfs, name=name, pod=other.pod if other else "")
    if other is None:
        spec["pod"] = daemon.call("POST", "/pods/plan", _plan(config, name))["id"]
        undo.callback(_remove_pod, daemon, spec["pod"])
    made = daemon.call("POST", "/containers", spec)
    if other:
        undo.callback(_remove_container, daemon, made["id"])
    record = Record(
        id=args.id, host=daemon.path, bundle=str(bundle), rootfs=rootfs, container=made["id"], pod=spec["pod"],
        owns_pod=other is None, owner=_user_name(),
        created=datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z"),
        annotations=config.get("annotations") or {}, hooks=config.get("hooks") or {},
    )  # fmt: skip
    records.put(record)
    return record


def _user_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _name(args: Namespace) -> str:
    """Callers with other --root directories may have the same ids."""
    where = hashlib.sha256(os.path.abspath(args.root).encode()).hexdigest()[:6]
    plain = re.sub(r"[^a-zA-Z0-9_.-]", "-", args.id[:_NAME_MAX]).lstrip("_.-")
    return f"oci-{plain}-{where}"


def _plan(config: dict[str, Any], name: str) -> dict[str, Any]:
    namespace = sandbox.namespaces_of(config)["network"]
    return translation.pod_of(config, interfaces_of(namespace) if namespace else [], name=name)


def _stand(
    config: dict[str, Any], args: Namespace, daemon: Daemon, records: Records, record: Record, undo: Undo
) -> None:
    """What stands for it on this host, with its terminal; and the hooks that are run before the start."""
    terminal, process = -1, config["process"]
    if process.get("terminal"):
        terminal = open_terminal(args.console_socket, process.get("consoleSize") or {})
        undo.callback(os.close, terminal)
    pid = stand_in(daemon, container(record.container), terminal=terminal, looks=_looks(config, record))
    undo.callback(_end, pid)
    record = records.stood(record, pid)
    hooks = record.hooks
    run_hooks([*(hooks.get("prestart") or []), *(hooks.get("createRuntime") or [])], state_of(record, "creating"))
    write_pid(args.pid_file, pid)


def _looks(config: dict[str, Any], record: Record) -> Looks:
    """What stands for it shows of it."""
    process = config["process"]
    environment = dict(e.split("=", 1) for e in process.get("env") or [] if "=" in e)
    binds = [m for m in mounts_of(config, Path(record.bundle)) if m["type"] == "bind"]
    return Looks(
        rootfs=record.rootfs, binds=[(m["source"], m["target"], m["readOnly"]) for m in binds],
        namespace=sandbox.namespaces_of(config)["network"], program=process["args"][0],
        path=environment.get("PATH", _PATH), cwd=process.get("cwd") or "/",
    )  # fmt: skip


def start(args: Namespace, daemon: Daemon, records: Records) -> int:
    """Its machine boots, if it does not run, and its program begins."""
    record = records.get(args.id)
    status = status_of(record, daemon)
    if status != "created":
        raise InvalidState(f"cannot start a container that is {status}: {args.id}")
    try:
        daemon.call("POST", container(record.container, "/start"))
    except HyperError:
        _end(record.pid)
        raise
    record = records.change(record, started=True)
    with contextlib.suppress(InvalidState):  # its program runs, whatever they say
        run_hooks(record.hooks.get("poststart") or [], state_of(record, "running"))
    return 0


def run(args: Namespace, daemon: Daemon, records: Records) -> int:
    """create and start; unless detached, wait for its end, and remove it. Its exit status."""
    if not args.detach:
        become_subreaper()
    create(args, daemon, records)
    record = records.get(args.id)
    try:
        start(args, daemon, records)
    except BaseException:
        remove(record, daemon, records)
        raise
    if args.detach:
        return 0
    status = os.waitstatus_to_exitcode(os.waitpid(record.pid, 0)[1])
    if not args.keep:
        remove(record, daemon, records)
    return status if status >= 0 else 128 - status


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
    daemon.call("POST", container(record.container, "/kill"), signal=str(number))
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
        records.remove(args.id)  # what died while it was made
        return 0
    status = status_of(record, daemon)
    if status in ("running", "paused") and not args.force:
        raise InvalidState(f"cannot delete container {args.id} that is not stopped: {status}")
    remove(record, daemon, records)
    return 0


def remove(record: Record, daemon: Daemon, records: Records) -> None:
    """Whatever it does."""
    with contextlib.suppress(NotFound):
        if record.owns_pod:
            daemon.call("DELETE", f"/pods/{record.pod}", force="1")
        else:
            daemon.call("DELETE", container(record.container), force="1")
    if stands(record):
        _end(record.pid)
    records.remove(record.id)
    with contextlib.suppress(InvalidState):
        run_hooks(record.hooks.get("poststop") or [], state_of(record, "stopped"))


def pause(args: Namespace, daemon: Daemon, records: Records) -> int:
    """Freeze it."""
    daemon.call("POST", container(records.get(args.id).container, "/pause"))
    return 0


def resume(args: Namespace, daemon: Daemon, records: Records) -> int:
    """Let it go on."""
    daemon.call("POST", container(records.get(args.id).container, "/unpause"))
    return 0


def update(args: Namespace, daemon: Daemon, records: Records) -> int:
    """What is not said stays; what is for who shares a kernel is passed over."""
    record = records.get(args.id)
    given: dict[str, Any] = read_object(args.resources) if args.resources else {}
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
        daemon.call("POST", container(record.container, "/update"), change)
    return 0


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _remove_pod(daemon: Daemon, pod: str) -> None:
    with contextlib.suppress(HyperError):
        daemon.call("DELETE", f"/pods/{pod}", force="1")


def _remove_container(daemon: Daemon, id_: str) -> None:
    with contextlib.suppress(HyperError):
        daemon.call("DELETE", container(id_), force="1")
