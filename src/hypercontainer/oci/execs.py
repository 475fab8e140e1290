# SPDX-License-Identifier: Apache-2.0
"""exec: a further process, with one of this host that stands for it."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from ..client.base import container_route, exec_route
from ..errors import InvalidArgument, InvalidState, Unsupported
from .daemon import Daemon
from .files import read_object, write_pid
from .lifecycle import end
from .records import Records
from .stand_in import OWN, await_end, pass_signals_on, stand_in
from .states import status_of
from .terminal import is_ours, open_terminal
from .translation import ambient_of, capabilities_of, groups_of, user_of
from .view import become_subreaper


def exec_(args: Namespace, daemon: Daemon, records: Records) -> int:
    """Unless detached, its exit status.

    :raise HyperError: it cannot be started.
    """
    record = records.get(args.id)
    if args.preserve_fds:
        raise Unsupported("open files of this host cannot be handed to a virtual machine (--preserve-fds)")
    status = status_of(record, daemon)
    if status != "running":
        raise InvalidState(f"cannot exec in a {status} container")
    process = read_object(args.process) if args.process else _of_options(args)
    has_terminal = bool(process.get("terminal") or args.tty)
    if not args.detach:
        become_subreaper()
    made = daemon.call("POST", container_route(record.container, "/exec"), _spec(process, terminal=has_terminal))
    terminal, size = -1, process.get("consoleSize") or {}
    if has_terminal and is_ours(args.console_socket, detached=args.detach):
        terminal = OWN
    elif has_terminal:
        terminal = open_terminal(args.console_socket, size)
    pid = stand_in(daemon, exec_route(made["id"]), terminal=terminal)
    if not args.detach:
        pass_signals_on(pid)
    try:
        daemon.call("POST", exec_route(made["id"], "/start"))
        write_pid(args.pid_file, pid)
    except BaseException:
        end(pid)
        raise
    if args.detach:
        return 0
    return await_end(pid)


def _of_options(args: Namespace) -> dict[str, Any]:
    """A process as the specification has it."""
    if not args.command:
        raise InvalidArgument("exec needs a command, or --process")
    uid, _, gid = args.user.partition(":")
    if not (uid or "0").isdecimal() or not (gid or "0").isdecimal():
        raise InvalidArgument(f"invalid user {args.user!r}", hint="give numbers, as UID[:GID]")
    process: dict[str, Any] = {"args": args.command, "env": args.env, "cwd": args.cwd}
    process["user"] = {"uid": int(uid or 0), "gid": int(gid or 0), "additionalGids": args.additional_gids}
    if not args.user and not args.additional_gids:
        del process["user"]
    if args.cap:
        process["capabilities"] = {"bounding": args.cap}
    process["noNewPrivileges"] = args.no_new_privs
    return process


def _spec(process: dict[str, Any], *, terminal: bool) -> dict[str, Any]:
    """An ExecSpec; what the process does not say is the container's."""
    if not process.get("args"):
        raise InvalidArgument("the process has no arguments")
    spec: dict[str, Any] = {
        "command": process["args"], "env": process.get("env") or [], "workdir": process.get("cwd") or "",
        "tty": terminal, "stdin": True, "detach": True,
        "noNewPrivileges": bool(process.get("noNewPrivileges")),
    }  # fmt: skip
    if process.get("user") is not None:
        spec |= {"user": user_of(process), "groups": groups_of(process)}
    if process.get("capabilities") is not None:
        spec |= {"capabilities": capabilities_of(process), "ambient": ambient_of(process)}
    return spec
