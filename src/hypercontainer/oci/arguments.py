# SPDX-License-Identifier: Apache-2.0
"""The command line, as runc has it: what callers pass is understood, also where it has nothing to say here."""

from __future__ import annotations

import argparse
import os

from .. import __version__

TYPE_CHECKING = False
DEFAULT_ROOT = "/run/hyper-runtime"
SPEC_VERSION = "1.0.2"
_VERSION = f"hyper-runtime {__version__}\nspec: {SPEC_VERSION}"


def _root() -> str:
    return DEFAULT_ROOT if os.geteuid() == 0 else f"{os.environ.get('XDG_RUNTIME_DIR', '/tmp')}/hyper-runtime"


def parser() -> argparse.ArgumentParser:
    """Of all verbs."""
    top = argparse.ArgumentParser(
        prog="hyper-runtime", description="An OCI runtime whose containers run in virtual machines of a hyperd.",
        allow_abbrev=False,
    )  # fmt: skip
    top.add_argument("--version", "-v", action="version", version=_VERSION)
    top.add_argument("--root", default=_root(), help="directory of the containers' state")
    top.add_argument("--log", default="", help="file for errors, beside stderr")
    top.add_argument("--log-format", default="text", choices=["text", "json"])
    top.add_argument("--hyper-host", default="", help="hyperd's socket [HYPER_HOST, or root's]")
    for flag in ("--debug", "--systemd-cgroup"):
        top.add_argument(flag, action="store_true", help="accepted: it has nothing to say here")
    for option in ("--rootless", "--criu"):
        top.add_argument(option, default="", help="accepted: it has nothing to say here")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    _lifecycle(verbs)
    _processes(verbs)
    _reports(verbs)
    return top


if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def _verb(verbs: Verbs, name: str, help_: str, *, container: bool = True) -> argparse.ArgumentParser:
    made = verbs.add_parser(name, help=help_, allow_abbrev=False)
    if container:
        made.add_argument("id")
    return made


def _lifecycle(verbs: Verbs) -> None:
    for name, what in (("create", "make a container of a bundle"), ("run", "make, start, and follow to its end")):
        verb = _verb(verbs, name, what)
        verb.add_argument("--bundle", "-b", default=".")
        verb.add_argument("--pid-file", default="")
        verb.add_argument("--console-socket", default="")
        verb.add_argument("--preserve-fds", type=int, default=0)
        for flag in ("--no-pivot", "--no-new-keyring", "--no-subreaper", "--keep"):
            verb.add_argument(flag, action="store_true")
        if name == "run":
            verb.add_argument("--detach", "-d", action="store_true")
    _verb(verbs, "start", "start what was created")
    kill = _verb(verbs, "kill", "send a signal to its process")
    kill.add_argument("signal", nargs="?", default="SIGTERM")
    kill.add_argument("--all", "-a", action="store_true")
    delete = _verb(verbs, "delete", "remove it")
    delete.add_argument("--force", "-f", action="store_true", help="also what runs, and what is not there")
    _verb(verbs, "pause", "freeze its processes")
    _verb(verbs, "resume", "let them go on")
    update = _verb(verbs, "update", "change its limits")
    update.add_argument("--resources", "-r", default="", help="file with them, by the specification; - is stdin")
    for option in ("--memory", "--cpu-quota", "--cpu-period", "--pids-limit"):
        update.add_argument(option, type=int, default=None)


def _processes(verbs: Verbs) -> None:
    exec_ = _verb(verbs, "exec", "run a further process in it")
    exec_.add_argument("command", nargs=argparse.REMAINDER)
    exec_.add_argument("--process", "-p", default="", help="file with the process as the specification has it")
    exec_.add_argument("--pid-file", default="")
    exec_.add_argument("--console-socket", default="")
    exec_.add_argument("--detach", "-d", action="store_true")
    exec_.add_argument("--tty", "-t", action="store_true")
    exec_.add_argument("--cwd", default="")
    exec_.add_argument("--user", "-u", default="")
    exec_.add_argument("--env", "-e", action="append", default=[])
    exec_.add_argument("--cap", "-c", action="append", default=[])
    exec_.add_argument("--additional-gids", "-g", action="append", default=[])
    exec_.add_argument("--no-new-privs", action="store_true")
    exec_.add_argument("--preserve-fds", type=int, default=0)
    exec_.add_argument("--ignore-paused", action="store_true")
    ps = _verb(verbs, "ps", "its processes")
    ps.add_argument("--format", "-f", default="table", choices=["table", "json"])
    ps.add_argument("options", nargs=argparse.REMAINDER)


def _reports(verbs: Verbs) -> None:
    _verb(verbs, "state", "its state, as JSON")
    events = _verb(verbs, "events", "what it uses, as JSON")
    events.add_argument("--stats", action="store_true", help="once")
    events.add_argument("--interval", default="5s")
    list_ = _verb(verbs, "list", "all containers", container=False)
    list_.add_argument("--format", "-f", default="table", choices=["table", "json"])
    list_.add_argument("--quiet", "-q", action="store_true")
    _verb(verbs, "features", "what this runtime knows, as JSON", container=False)
    spec = _verb(verbs, "spec", "write a configuration to begin with", container=False)
    spec.add_argument("--bundle", "-b", default=".")
