# SPDX-License-Identifier: Apache-2.0
"""Bad input over Docker's API: each request is answered with Docker's status, and a message that says what is wrong.

`ID` stands for the id of the container `a`, which does not run, and `UP` for that of `up`, which does. `HOLDS` is that
of one which has the volume `held`, and there is a network `net`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .served import Served, served

Row = tuple[str, str, Any, int, str]


def _filters(**given: Any) -> str:
    return "filters=" + quote(json.dumps(given))


def _host(**fields: Any) -> dict[str, Any]:
    return {"Image": "box", "HostConfig": fields}


def _deep(levels: int) -> Any:
    return {"a": _deep(levels - 1)} if levels else {}


_EXEC = {"AttachStdout": True}
ROWS: list[Row] = [
    # versions and routes
    ("GET", "/v1.10/containers/json", None, 400, "client version 1.10 is too old"),
    ("GET", "/v9.9/containers/json", None, 400, "client version 9.9 is too new"),
    ("GET", "/containers", None, 404, "page not found"),
    ("GET", "/v1.51/nope", None, 404, "page not found"),
    # what is not there
    ("GET", "/containers/x/json", None, 404, "No such container: x"),
    ("POST", "/containers/x/start", None, 404, "No such container: x"),
    ("POST", "/containers/x/stop", None, 404, "No such container: x"),
    ("POST", "/containers/x/restart", None, 404, "No such container: x"),
    ("POST", "/containers/x/kill", None, 404, "No such container: x"),
    ("POST", "/containers/x/pause", None, 404, "No such container: x"),
    ("POST", "/containers/x/unpause", None, 404, "No such container: x"),
    ("POST", "/containers/x/rename?name=y", None, 404, "No such container: x"),
    ("POST", "/containers/x/update", {"Memory": 1 << 27}, 404, "No such container: x"),
    ("POST", "/containers/x/wait", None, 404, "No such container: x"),
    ("POST", "/containers/x/attach?stream=1", None, 404, "No such container: x"),
    ("POST", "/containers/x/resize?h=1&w=1", None, 404, "No such container: x"),
    ("POST", "/containers/x/exec", {"Cmd": ["true"]}, 404, "No such container: x"),
    ("GET", "/containers/x/top", None, 404, "No such container: x"),
    ("GET", "/containers/x/changes", None, 404, "No such container: x"),
    ("GET", "/containers/x/export", None, 404, "No such container: x"),
    ("DELETE", "/containers/x", None, 404, "No such container: x"),
    ("POST", "/commit?container=x", None, 404, "No such container: x"),
    ("POST", "/exec/x/start", {}, 404, "No such exec instance: x"),
    ("GET", "/exec/x/json", None, 404, "No such exec instance: x"),
    ("GET", "/images/x/json", None, 404, "No such image: x:latest"),
    ("GET", "/images/x/history", None, 404, "No such image: x:latest"),
    ("DELETE", "/images/x", None, 404, "No such image: x:latest"),
    ("POST", "/images/x/tag?repo=y", None, 404, "No such image: x:latest"),
    ("GET", "/volumes/x", None, 404, "get x: no such volume"),
    ("DELETE", "/volumes/x", None, 404, "get x: no such volume"),
    ("GET", "/networks/x", None, 404, "network x not found"),
    ("DELETE", "/networks/x", None, 404, "network x not found"),
    # what the state does not allow
    ("POST", "/containers/a/kill", None, 409, "cannot kill container: a: container ID is not running"),
    ("POST", "/containers/a/pause", None, 409, "container ID is not running"),
    ("POST", "/containers/a/unpause", None, 409, "Container ID is not paused"),
    ("POST", "/containers/a/exec", {"Cmd": ["true"]}, 409, "is not running"),
    ("GET", "/containers/a/top", None, 409, "container ID is not running"),
    ("DELETE", "/containers/up", None, 409, 'cannot remove container "/up": container is running: stop the container'),
    ("POST", "/containers/create?name=a", {"Image": "box"}, 409, 'name "/a" is already in use by .* "ID"'),
    ("POST", "/containers/a/rename?name=up", None, 409, 'The container name "/up" is already in use by .* "UP"'),
    ("DELETE", "/images/box", None, 409, "box"),
    # what is no value
    ("POST", "/containers/create?name=-x", {"Image": "box"}, 400, re.escape(
        "Invalid container name (-x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")),
    ("POST", "/containers/create", b"{", 400, "invalid JSON"),
    ("POST", "/containers/create", b"[]", 400, "invalid JSON"),
    ("POST", "/containers/create", b"", 400, "invalid JSON: got EOF"),
    ("POST", "/containers/create", {"Image": "nope"}, 404, "No such image: nope:latest"),
    ("POST", "/containers/create", {"Image": "No:such:form"}, 400, "invalid reference format"),
    ("POST", "/containers/create", {"Image": "box", "Env": {"A": "b"}}, 400, "Env"),
    ("POST", "/containers/create", {"Image": "box", "Entrypoint": [""]}, 400, "no command specified"),
    ("POST", "/containers/create", {"Image": "box", "WorkingDir": "x"}, 400, "working directory 'x' is not absolute"),
    ("POST", "/containers/create", {"Image": "box", "StopSignal": "NOPE"}, 400, "[Ii]nvalid signal"),
    ("POST", "/containers/create", {"Image": "box", "ExposedPorts": {"x/tcp": {}}}, 400, "invalid port"),
    ("POST", "/containers/create", _host(Binds=["x:y:z:q"]), 400, "invalid volume specification: 'x:y:z:q'"),
    ("POST", "/containers/create", _host(Binds=["a:/x", "b:/x"]), 400, "Duplicate mount point: /x"),
    ("POST", "/containers/create", _host(Mounts=[{"Type": "odd", "Target": "/x"}]), 400, 'mount type unknown: "odd"'),
    ("POST", "/containers/create", _host(Mounts=[{"Type": "volume"}]), 400, "field Target must not be empty"),
    ("POST", "/containers/create", _host(Mounts=[{"Type": "bind", "Source": "/nowhere", "Target": "/x"}]), 400,
     'invalid mount config for type "bind": bind source path does not exist: /nowhere'),
    ("POST", "/containers/create", _host(RestartPolicy={"Name": "x"}), 400, "invalid restart policy: unknown policy"),
    ("POST", "/containers/create", _host(NanoCpus=1, CpuQuota=5000), 400, "Nano CPUs and CPU Quota cannot"),
    ("POST", "/containers/create", _host(Memory=5), 400, "too small"),
    ("POST", "/containers/create", _host(AutoRemove=True, RestartPolicy={"Name": "always"}), 400, "removed and"),
    ("POST", "/containers/create", _host(CapAdd=["NOPE"]), 400, "capability"),
    ("POST", "/containers/create", _host(NetworkMode="nope"), 400, "network nope not found"),
    ("POST", "/containers/create", _host(ExtraHosts=["x"]), 400, 'bad format for add-host: "x"'),
    ("POST", "/containers/a/rename", None, 400, "Neither old nor new names may be empty"),
    ("POST", "/containers/a/rename?name=a", None, 400, "Renaming a container with the same name as its current name"),
    ("POST", "/containers/a/rename?name=%2B", None, 400, re.escape("Invalid container name (+)")),
    ("POST", "/containers/up/kill?signal=NOPE", None, 400, "[Ii]nvalid signal"),
    ("POST", "/containers/a/stop?t=soon", None, 400, "not a whole number"),
    ("POST", "/containers/up/resize?h=x&w=1", None, 400, "not a whole number"),
    ("POST", "/containers/a/wait?condition=well", None, 400, 'invalid condition: "well"'),
    ("POST", "/containers/up/exec", {"Cmd": []}, 400, "[Nn]o (exec )?command specified"),
    ("GET", "/containers/up/top?ps_args=-o%20user", None, 400, "Couldn't find PID field in ps output"),
    ("GET", "/containers/json?limit=x", None, 400, "not a whole number"),
    ("GET", "/containers/json?filters=x", None, 400, "invalid filters"),
    ("GET", f"/containers/json?{_filters(x=['y'])}", None, 400, "invalid filter 'x'"),
    ("GET", f"/containers/json?{_filters(status=['well'])}", None, 400, "invalid filter 'status=well'"),
    ("GET", f"/containers/json?{_filters(since=['x'])}", None, 404, "No such container: x"),
    ("POST", f"/containers/prune?{_filters(until=['long ago'])}", None, 400, "long ago"),
    ("GET", f"/images/json?{_filters(x=['y'])}", None, 400, "invalid filter 'x'"),
    ("POST", "/images/create", None, 400, "."),
    ("POST", "/images/box/tag?repo=%3A%3A", None, 400, "."),
    ("POST", "/volumes/create", {"Name": "/x"}, 400, "."),
    ("POST", "/volumes/create", {"Name": "v", "Driver": "odd"}, 404, 'create v: error looking up volume plugin odd: '),
    ("POST", "/volumes/create", {"Name": "v", "DriverOpts": {"x": "y"}}, 400, 'create v: invalid option: "x"'),
    ("POST", "/networks/create", {"Name": "n", "Driver": "odd"}, 404, 'plugin "odd" not found'),
    ("POST", "/networks/net/connect", {"Container": "nope"}, 404, "No such container: nope"),
    ("POST", "/networks/net/disconnect", {"Container": "a"}, 403, "container ID is not connected to network net"),
    ("POST", "/networks/create", {"Name": "net"}, 409, "network with name net already exists"),
    ("GET", "/images/nope/get", None, 404, "No such image: nope"),
    ("GET", f"/images/json?{_filters(since=['nope'])}", None, 404, "No such image: nope:latest"),
    ("POST", "/volumes/create", {"Name": "a b"}, 400, 'create a b: "a b" includes invalid characters for a local volu'),
    ("DELETE", "/volumes/held", None, 409, r"remove held: volume is in use - \[HOLDS\]"),
    ("POST", "/networks/create", {"Name": ""}, 400, "."),
    ("POST", "/networks/create", {"Name": "bridge"}, 403, "operation is not permitted on predefined bridge network"),
    ("POST", "/networks/create", {"Name": "n", "IPAM": {"Config": [{"Subnet": "x"}]}}, 400,
     "invalid network config:\ninvalid subnet x: invalid CIDR block notation"),
    ("POST", "/networks/bridge/connect", {"Container": "a", "EndpointConfig": "x"}, 400, "EndpointConfig"),
    ("POST", "/networks/bridge/connect", {"Container": "a", "EndpointConfig": {"IPAMConfig": 1}}, 400, "IPAMConfig"),
    ("POST", "/containers/create", {"Image": "box", "Labels": _deep(400)}, 400, "too deep"),
    ("POST", "/containers/create", {"Image": "box", "Cmd": _deep(400)}, 400, "too deep"),
    ("POST", "/networks/bridge/connect", {"Container": "a", "DriverOpts": _deep(400)}, 400, "too deep"),
    ("DELETE", "/networks/bridge", None, 403, "bridge is a pre-defined network and cannot be removed"),
    # what is not had
    ("GET", "/swarm", None, 503, "This node is not a swarm manager: HyperContainer has no swarm"),
    ("POST", "/plugins/pull", None, 501, "no plugins"),
    ("POST", "/containers/a/checkpoints", {}, 501, "no checkpoints"),
    ("POST", "/containers/create", _host(Devices=[{"PathOnHost": "/dev/x"}]), 501, "HostConfig.Devices"),
    ("POST", "/containers/create", _host(NetworkMode="host"), 501, "a network of its own"),
]  # fmt: skip


async def _make(s: Served, name: str, *binds: str) -> str:
    answer = await s.ask("POST", f"/containers/create?name={name}", _host(Binds=list(binds)), docker=True)
    return str(answer.json["Id"])


async def test_each_is_answered_as_docker_would(template: Path) -> None:
    wrong = []
    async with served(template) as s:
        for kind, name in (("networks", "net"), ("volumes", "held")):
            assert (await s.ask("POST", f"/{kind}/create", {"Name": name}, docker=True)).status == 201
        ids = {"ID": await _make(s, "a"), "UP": await _make(s, "up"), "HOLDS": await _make(s, "holds", "held:/x")}
        assert (await s.ask("POST", "/containers/up/start", docker=True)).status == 204
        for method, path, body, status, message in ROWS:
            answer = await s.ask(method, path if path[1] == "v" and path[2].isdigit() else f"/v1.51{path}", body,
                                 docker=True)  # fmt: skip
            for name, id_ in ids.items():
                message = re.sub(rf"\b{name}\b", id_, message)
            told = json.loads(answer.body or b"{}")
            good = answer.status == status and list(told) == ["message"] and re.search(message, told["message"])
            wrong += [] if good else [f"{method} {path} {body}: {answer.status} {told}, not {status} {message}"]
    assert len(ROWS) >= 60
    assert not wrong, f"{len(wrong)} of {len(ROWS)}:\n" + "\n".join(wrong)
