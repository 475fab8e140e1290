# SPDX-License-Identifier: Apache-2.0
"""Verbs by Docker's API, among the others: the same containers, networks and images, whoever made them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .model import ASKED, KILLED, PROGRAM, Box
from .verbs import BOXES, verb

if TYPE_CHECKING:
    from .storm import Storm


def _ask(s: Storm, method: str, target: str, body: Any = None, *, status: int = 204) -> Any:
    """The document of an answer with this status; `None` of an empty one."""
    s.says(f"{method} {target}")
    found, answer = s.host.docker(method, target, body)
    assert found == status, f"{method} {target}: {found} {answer[:500]!r}"
    return json.loads(answer) if answer.strip().startswith((b"{", b"[")) else None


def _config(box: Box) -> dict[str, Any]:
    host: dict[str, Any] = {"Memory": 64 << 20, "RestartPolicy": {"Name": box.policy}}
    if box.network:
        host["NetworkMode"] = box.network
    return {"Image": "busybox", "Cmd": ["sh", "-c", PROGRAM, "sh", box.name], "HostConfig": host}


@verb(3)
def docker_run(s: Storm) -> bool:
    """Created, in a further network perhaps, and started."""
    if len(s.model.boxes) >= BOXES:
        return False
    box = Box(s.name("box"), policy=s.chance.choice(("no", "always", "on-failure")))
    box.network = s.chance.choice(["", *s.model.networks])
    _ask(s, "POST", f"/containers/create?name={box.name}", _config(box), status=201)
    s.model.boxes[box.name] = box
    _ask(s, "POST", f"/containers/{box.name}/start")
    s.model.started(box)
    return True


@verb(2)
def docker_stop(s: Storm) -> bool:
    box = s.any(s.model.alone("running"))
    if box:
        _ask(s, "POST", f"/containers/{box.name}/stop?t=60")
        s.model.ended(box, ASKED, wanted=True)
    return bool(box)


@verb(2)
def docker_kill(s: Storm) -> bool:
    box = s.any(s.model.alone("running"))
    if box:
        _ask(s, "POST", f"/containers/{box.name}/kill")
        s.model.ended(box, KILLED, wanted=True)
    return bool(box)


@verb(2)
def docker_exec(s: Storm) -> bool:
    box = s.any(s.model.of("running"))
    if box:
        asked = {"Cmd": ["sh", "-c", "cat /root/log; exit 5"], "AttachStdout": True}
        made = _ask(s, "POST", f"/containers/{box.name}/exec", asked, status=201)
        _ask(s, "POST", f"/exec/{made['Id']}/start", {"Detach": True}, status=200)
        state = f"/exec/{made['Id']}/json"
        s.until(lambda: not json.loads(s.host.docker("GET", state)[1])["Running"], "the end of an exec")
        assert _ask(s, "GET", f"/exec/{made['Id']}/json", status=200)["ExitCode"] == 5
    return bool(box)


@verb(2)
def docker_commit(s: Storm) -> bool:
    """An image of a container, which runs, and is removed."""
    box = s.any(s.model.alone("running", "exited"))
    if box:
        name = s.name("made")
        _ask(s, "POST", f"/commit?container={box.name}&repo={name}", {}, status=201)
        assert s.do("run", "--rm", name, "cat", "/root/log").stdout.split() == [box.name] * box.starts
        _ask(s, "DELETE", f"/images/{name}", status=200)
    return bool(box)


@verb(1)
def docker_network(s: Storm) -> bool:
    """A network that a container which stands still joins and leaves, and that goes again."""
    box = s.any(s.model.alone("exited", "created"))
    if box:
        name = s.name("net")
        _ask(s, "POST", "/networks/create", {"Name": name}, status=201)
        _ask(s, "POST", f"/networks/{name}/connect", {"Container": box.name}, status=200)
        _ask(s, "POST", f"/networks/{name}/disconnect", {"Container": box.name}, status=200)
        _ask(s, "DELETE", f"/networks/{name}")
    return bool(box)


@verb(2)
def docker_looks(s: Storm) -> bool:
    """Lists and details have what there is."""
    listed = _ask(s, "GET", "/containers/json?all=1", status=200)
    assert sorted(n[1:] for c in listed for n in c["Names"]) == sorted(s.model.boxes)
    for box in s.model.of("running", "paused"):
        state = _ask(s, "GET", f"/containers/{box.name}/json", status=200)["State"]
        assert state["Running"] and state["Paused"] == (box.state == "paused"), state
    return True
