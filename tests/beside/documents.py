# SPDX-License-Identifier: Apache-2.0
"""The same objects in both daemons, and the documents that tell of them."""

from __future__ import annotations

import time
import urllib.parse
from typing import Any

from .fields import ask
from .steps import Side

_FULL: dict[str, Any] = {
    "Image": "busybox", "Cmd": ["sleep", "1000"], "Env": ["A=1"], "Labels": {"app": "web"}, "WorkingDir": "/tmp",
    "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/scratch": {}}, "StopTimeout": 1, "Hostname": "full", "User": "0:0",
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000, "Retries": 3},
    "HostConfig": {
        "Binds": ["bound:/bound:ro"], "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18081"}]},
        "Mounts": [{"Type": "tmpfs", "Target": "/quick", "TmpfsOptions": {"SizeBytes": 1048576}}],
        "Memory": 67108864, "NanoCpus": 500000000, "PidsLimit": 100, "Dns": ["192.0.2.53"], "CapAdd": ["NET_ADMIN"],
        "ExtraHosts": ["far:192.0.2.7"], "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}, "Init": True,
        "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}], "SecurityOpt": ["no-new-privileges"],
    },
    "NetworkingConfig": {"EndpointsConfig": {"net": {"Aliases": ["other"],
                                                     "IPAMConfig": {"IPv4Address": "172.31.78.9"}}}},
}  # fmt: skip
_DEADLINE = 60.0  # seconds
_READ = (
    "/version", "/info", "/containers/plain/json", "/containers/full/json?size=1", "/containers/ended/json",
    "/containers/plain/stats?stream=false&one-shot=true", "/containers/plain/top", "/images/busybox/json",
    "/images/json", "/images/busybox/history", "/networks/net", "/networks/bridge", "/networks/none", "/networks/host",
    "/volumes", "/volumes/bound", "/system/df", "/system/df?type=volume",
)  # fmt: skip
_FILTERED = (
    ("/containers/json?size=1", {"name": ["full"]}), ("/containers/json?all=1", {"name": ["ended"]}),
    ("/networks", {"name": ["net"]}), ("/volumes", {"name": ["bound"]}),
)  # fmt: skip
_EVENTS = (
    "create",
    "start",
    "die",
    "destroy",
    "exec_create: true",
    "exec_start: true",
    "exec_die",
    "rename",
    "pause",
    "kill",
)


def _filters(**wanted: list[str]) -> str:
    import json

    return urllib.parse.quote(json.dumps(wanted))


def _healthy(side: Side, name: str) -> None:
    """Wait for the first check, which is at another time in each daemon."""
    end = time.monotonic() + _DEADLINE
    while ask(side.socket, "GET", f"/containers/{name}/json")[1]["State"]["Health"]["Status"] == "starting":
        assert time.monotonic() < end, f"{name} is not checked"
        time.sleep(0.1)


def gather(side: Side) -> dict[str, Any]:
    """Request -> status and document. All that is made is removed again."""
    found: dict[str, Any] = {}

    def do(method: str, target: str, body: object = None, name: str = "") -> Any:
        status, document = ask(side.socket, method, target, body)
        found[name or f"{method} {target.partition('?')[0]}"] = {"status": status, "body": document}
        return document

    do("POST", "/volumes/create", {"Name": "bound", "Labels": {"a": "b"}})
    do("POST", "/networks/create", {"Name": "net", "Labels": {"a": "b"},
                                    "IPAM": {"Config": [{"Subnet": "172.31.78.0/24"}]}})  # fmt: skip
    do("POST", "/containers/create?name=plain", {"Image": "busybox", "Cmd": ["sleep", "1000"]})
    do("POST", "/containers/create?name=full", _FULL)
    do("POST", "/containers/create?name=ended", {"Image": "busybox", "Cmd": ["false"], "Tty": True})
    do("GET", "/containers/full/json", name="a container that was never started")
    for name in ("plain", "full", "ended"):
        do("POST", f"/containers/{name}/start")
    do("POST", "/containers/ended/wait")
    _healthy(side, "full")
    made = do("POST", "/containers/plain/exec", {"Cmd": ["true"], "AttachStdout": True})
    ask(side.socket, "POST", f"/exec/{made['Id']}/start", {})
    do("GET", f"/exec/{made['Id']}/json", name="GET /exec/ID/json")
    for target in _READ:
        do("GET", target)
    for target, filters in _FILTERED:
        do(
            "GET",
            target + ("&" if "?" in target else "?") + f"filters={_filters(**filters)}",
            name=f"GET {target} ({filters['name'][0]})",
        )
    do("POST", "/containers/plain/update", {"Memory": 50331648, "MemorySwap": -1})
    do("GET", "/containers/ended/changes")
    do("DELETE", "/containers/plain")
    do("POST", "/containers/prune")
    for name in ("plain", "full"):
        do("DELETE", f"/containers/{name}?force=1&v=1")
    do("POST", "/volumes/prune?filters=" + _filters(all=["true"]))
    do("POST", "/networks/prune")
    do("POST", "/images/prune")
    do("POST", "/images/busybox/tag?repo=again&tag=1")
    do("DELETE", "/images/again:1")
    return found
