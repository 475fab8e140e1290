# SPDX-License-Identifier: Apache-2.0
"""create, and run, which begins with it."""

from __future__ import annotations

import contextlib
import datetime
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from ..client.base import container_route
from ..errors import HyperError, InvalidArgument, Unsupported
from . import sandbox, translation
from .complaints import complain
from .daemon import Daemon
from .files import read_object, write_pid
from .hooks import run_each, run_hooks
from .interfaces import interfaces_of
from .lifecycle import end, remove, start
from .mounts import mounts_of
from .records import Record, Records
from .stand_in import OWN, Looks, await_end, pass_signals_on, stand_in
from .states import state_of
from .terminal import is_ours, open_terminal
from .view import become_subreaper, enter_namespaces

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # of a process that says none
_ALL = ["0", "0", "4294967295"]  # of user_namespaces(7): the host's own
Undo = contextlib.ExitStack


def create(args: Namespace, daemon: Daemon, records: Records) -> int:
    """Make the container, and what stands for it; or nothing of both."""
    if args.preserve_fds:
        raise Unsupported("open files of this host cannot be handed to a virtual machine (--preserve-fds)")
    _check_root(daemon)
    bundle = Path(args.bundle).absolute()
    config = read_object(bundle / "config.json")
    translation.check(config)
    rootfs = bundle / config["root"]["path"]
    if rootfs.exists() and not rootfs.is_dir():
        raise InvalidArgument(
            f"root.path {rootfs} is no directory", hint="mount the image or the device, and name that"
        )
    records.claim(args.id)
    with contextlib.ExitStack() as undo:
        made: list[Record] = []
        undo.callback(_tell_of_the_end, args, made)
        undo.callback(records.remove, args.id)
        made.append(_make(config, bundle, args, daemon, records, undo))
        _stand(config, args, daemon, records, made[0], undo)
        undo.pop_all()
    return 0


def _check_root(daemon: Daemon) -> None:
    """:raise Unsupported: this is not root as hyperd knows it, but that of rootless podman's, or nobody's."""
    if os.geteuid() == 0 and (Path("/proc/self/uid_map").read_text().split() == _ALL or daemon.shares_users()):
        return
    raise Unsupported(
        "hyper-runtime is for this host's root: what another user mounts in a namespace of its own, no hyperd sees",
        hint="run podman as root: the virtual machine keeps the container from this host",
    )


def _tell_of_the_end(args: Namespace, made: list[Record]) -> None:
    """Of a container that was made, and could not stay."""
    for record in made:
        hooks = record.hooks.get("poststop") or []
        run_each(hooks, state_of(record, "stopped"), lambda text: complain(args, text, "warning"))


def _make(
    config: dict[str, Any], bundle: Path, args: Namespace, daemon: Daemon, records: Records, undo: Undo
) -> Record:
    """The container in hyperd, and its pod where it has one of its own."""
    rootfs = os.path.join(bundle, config["root"]["path"])
    name = records.name_of(args.id)
    other = sandbox.joined(config, records)
    spec = translation.container_of(config, bundle, rootfs, id_=args.id, name=name, pod=other.pod if other else "")
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


def _plan(config: dict[str, Any], name: str) -> dict[str, Any]:
    namespace = sandbox.namespaces_of(config)["network"]
    return translation.pod_of(config, interfaces_of(namespace) if namespace else [], name=name)


def _stand(
    config: dict[str, Any], args: Namespace, daemon: Daemon, records: Records, record: Record, undo: Undo
) -> None:
    """What stands for it on this host, with its terminal; and the hooks that are run before the start."""
    terminal, process = -1, config["process"]
    if process.get("terminal") and args.verb == "run" and is_ours(args.console_socket, detached=args.detach):
        terminal = OWN
    elif process.get("terminal"):
        terminal = open_terminal(args.console_socket, process.get("consoleSize") or {})
        undo.callback(os.close, terminal)
    pid = stand_in(daemon, container_route(record.container), terminal=terminal, looks=_looks(config, record))
    undo.callback(end, pid)
    record = records.stood(record, pid)
    hooks, state = record.hooks, state_of(record, "creating")
    run_hooks([*(hooks.get("prestart") or []), *(hooks.get("createRuntime") or [])], state)
    network, hostname = sandbox.namespaces_of(config)["network"], config.get("hostname") or ""
    run_hooks(hooks.get("createContainer") or [], state, lambda: enter_namespaces(network, hostname))
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


def run(args: Namespace, daemon: Daemon, records: Records) -> int:
    """create and start; unless detached, wait for its end, and remove it. Its exit status."""
    if not args.detach:
        become_subreaper()
    create(args, daemon, records)
    record = records.get(args.id)
    if not args.detach:
        pass_signals_on(record.pid)
    try:
        start(args, daemon, records)
    except BaseException:
        remove(args, record, daemon, records)
        raise
    if args.detach:
        return 0
    status = await_end(record.pid)
    if not args.keep:
        remove(args, record, daemon, records)
    return status


def _remove_pod(daemon: Daemon, pod: str) -> None:
    with contextlib.suppress(HyperError):
        daemon.call("DELETE", f"/pods/{pod}", force="1")


def _remove_container(daemon: Daemon, id_: str) -> None:
    with contextlib.suppress(HyperError):
        daemon.call("DELETE", container_route(id_), force="1")
