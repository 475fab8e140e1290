# SPDX-License-Identifier: Apache-2.0
"""state, list, ps, events, features, spec."""

from __future__ import annotations

import json
import re
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from ..client.base import container_route
from ..errors import Conflict, InvalidArgument, InvalidState
from .arguments import SPEC_VERSION
from .daemon import Daemon
from .hooks import KINDS
from .records import Records
from .states import state_of, status_of

_PERIOD = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_INDENT = 2


def state(args: Namespace, daemon: Daemon, records: Records) -> int:
    """As JSON."""
    record = records.get(args.id)
    print(json.dumps(state_of(record, status_of(record, daemon)), indent=_INDENT))
    return 0


def list_(args: Namespace, daemon: Daemon, records: Records) -> int:
    """A table, their ids, or an array of states."""
    found = [state_of(r, status_of(r, Daemon(r.host))) for r in records.all()]
    if args.quiet:
        print("".join(f"{s['id']}\n" for s in found), end="")
    elif args.format == "json":
        print(json.dumps(found))
    else:
        rows = [[str(s[k]) for k in ("id", "pid", "status", "bundle", "created", "owner")] for s in found]
        _table([["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"], *rows])
    return 0


def ps(args: Namespace, daemon: Daemon, records: Records) -> int:
    """JSON has numbers of this host's processes: there is one. The table is of the container's own."""
    record = records.get(args.id)
    if (status := status_of(record, daemon)) not in ("running", "paused"):
        raise InvalidState(f"container {args.id} is {status}, and has no processes")
    if args.format == "json":
        print(json.dumps([record.pid]))
        return 0
    found = daemon.call("GET", container_route(record.container, "/top"))
    _table([["UID", "PID", "PPID", "CMD"]] + [[str(p[k]) for k in ("uid", "pid", "ppid", "command")] for p in found])
    return 0


def _table(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def events(args: Namespace, daemon: Daemon, records: Records) -> int:
    """What it uses, once or for as long as it runs."""
    record, period = records.get(args.id), _seconds(args.interval)
    while True:
        if (status := status_of(record, daemon)) not in ("running", "paused"):
            if args.stats:
                raise InvalidState(f"container {args.id} is {status}, and uses nothing")
            return 0
        used = daemon.call("GET", container_route(record.container, "/stats"))
        print(json.dumps({"type": "stats", "id": args.id, "data": _as_runc(used)}), flush=True)
        if args.stats:
            return 0
        time.sleep(period)


def _seconds(text: str) -> float:
    match = re.match(r"^(\d+(?:\.\d+)?)(ms|s|m|h)\Z", text)
    if not match or not float(match[1]):
        raise InvalidArgument(f"invalid interval {text!r}", hint="write it as 5s")
    return float(match[1]) * _PERIOD[match[2]]


def _as_runc(used: dict[str, Any]) -> dict[str, Any]:
    """Nanoseconds and bytes, by runc's names."""
    memory = {"usage": {"usage": used["memory"], "limit": used["memoryLimit"]}, "raw": used["memoryDetails"]}
    cpu = {"usage": {"total": used["cpuUsec"] * 1000}}
    return {"cpu": cpu, "memory": memory, "pids": {"current": used["pids"]}}


_SECCOMP = {
    "enabled": True,
    "actions": [f"SCMP_ACT_{a}" for a in ("ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "TRACE",
                                          "TRAP")],
    "operators": [f"SCMP_CMP_{o}" for o in ("EQ", "GE", "GT", "LE", "LT", "MASKED_EQ", "NE")],
    "archs": [f"SCMP_ARCH_{a}" for a in ("AARCH64", "ARM", "X32", "X86", "X86_64")],
    "knownFlags": [f"SECCOMP_FILTER_FLAG_{f}" for f in ("LOG", "SPEC_ALLOW", "TSYNC", "WAIT_KILLABLE_RECV")],
    "supportedFlags": [f"SECCOMP_FILTER_FLAG_{f}" for f in ("LOG", "SPEC_ALLOW", "TSYNC", "WAIT_KILLABLE_RECV")],
}  # fmt: skip


def features(args: Namespace, daemon: Daemon, records: Records) -> int:
    """https://github.com/opencontainers/runtime-spec/blob/main/features.md."""
    print(json.dumps({
        "ociVersionMin": "1.0.0", "ociVersionMax": SPEC_VERSION,
        "hooks": list(KINDS),
        "mountOptions": ["bind", "rbind", "ro", "rw", "private", "rprivate", "slave", "rslave", "noexec", "exec",
                         "size", "mode", "uid", "gid"],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "uts"],
            "cgroup": {"v1": False, "v2": True, "systemd": False},
            "seccomp": _SECCOMP,
            "apparmor": {"enabled": False}, "selinux": {"enabled": False},
        },
        "annotations": {"org.hypercontainer.isolation": "virtual machine"},
    }, indent=_INDENT))  # fmt: skip
    return 0


_DEFAULT_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]


def spec(args: Namespace, daemon: Daemon, records: Records) -> int:
    """:raise Conflict: there is one."""
    path = Path(args.bundle) / "config.json"
    sets = ("bounding", "effective", "permitted")
    written = {
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": True, "user": {"uid": 0, "gid": 0}, "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"], "cwd": "/",
            "capabilities": dict.fromkeys(sets, _DEFAULT_CAPABILITIES),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}], "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "hyper",
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "namespaces": [{"type": t} for t in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }  # fmt: skip
    try:
        with open(path, "x") as file:
            file.write(json.dumps(written, indent=_INDENT) + "\n")
    except FileExistsError:
        raise Conflict(f"{path} exists", hint="remove it first") from None
    return 0
