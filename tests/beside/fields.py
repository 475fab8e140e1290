# SPDX-License-Identifier: Apache-2.0
"""Documents of both daemons, field by field: which are there, of what type, empty or null, and what plain ones say."""

from __future__ import annotations

import http.client
import json
import re
import socket
from pathlib import Path
from typing import Any

from .steps import Difference

_VERSION = "v1.45"
_DEADLINE = 120.0  # seconds
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}\b")
_SHORT = re.compile(r"\b[0-9a-f]{12}\b")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)")
_AGE = re.compile(r"\b(?:Less than a second|\d+ seconds?)\b")
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+(?:/\d+)?|(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
# Maps whose keys are no fields of Docker's.
_MAPS = re.compile(r"\.(Labels|Containers|Networks|Ports|Options|Annotations|PortBindings|ExposedPorts|Runtimes|Sysctls"
                   r"|Volumes|Tmpfs|DriverOpts|GraphDriver\.Data|Attributes|PortsInfo|IndexConfigs)$")  # fmt: skip


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("docker", timeout=_DEADLINE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_DEADLINE)
        self.sock.connect(str(self._path))


def ask(path: Path, method: str, target: str, body: object = None) -> tuple[int, Any]:
    """The status, and the document; of a stream its first."""
    connection = _Connection(path)
    data = None if body is None else json.dumps(body)
    connection.request(method, f"/{_VERSION}{target}", data, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    connection.close()
    try:
        return answer.status, json.loads(text.partition("\n")[0]) if text.strip() else None
    except ValueError:
        return answer.status, text


def differences(what: str, docker: Any, here: Any, path: str = "") -> list[Difference]:
    """Of two documents; `[]` in a path is any entry of a list, of which the first ones are compared."""
    if isinstance(docker, dict) and isinstance(here, dict):
        if _MAPS.search(path):
            return _of_maps(what, docker, here, path)
        found = []
        for key in dict.fromkeys([*docker, *here]):
            at = f"{path}.{key}"
            if key in docker and key in here:
                found += differences(what, docker[key], here[key], at)
            else:
                found.append(Difference(f"{what}{at}", _told(docker, key), _told(here, key)))
        return found
    if isinstance(docker, list) and isinstance(here, list) and docker and here:
        if isinstance(docker[0], dict) and isinstance(here[0], dict):
            return differences(what, _first(docker), _first(here), f"{path}[]")
        docker, here = [_plain(x) for x in docker], [_plain(x) for x in here]
    same = json.dumps(_plain(docker)) == json.dumps(_plain(here))  # in Python 1 is true
    if path.endswith(".Created") and isinstance(docker, int) and isinstance(here, int):
        return []  # seconds since 1970
    return [] if same else [Difference(what + path, _short(docker), _short(here))]


def _first(entries: list[Any]) -> Any:
    """Of mounts and volumes, which have no order, the one whose path or name is; names that nobody gave are last."""

    def order(entry: dict[str, Any]) -> tuple[str, bool, str]:
        name = str(entry.get("Name", ""))
        return str(entry.get("Destination", "")), bool(_ID.fullmatch(name)), name

    return min(entries, key=order)


def _of_maps(what: str, docker: dict[str, Any], here: dict[str, Any], path: str) -> list[Difference]:
    """Their keys are compared, as far as they are none of ids; and of each sort one value."""
    names = [sorted(_plain(key) for key in each) for each in (docker, here)]
    found = [] if names[0] == names[1] else [Difference(what + path, *(", ".join(n) or "{}" for n in names))]
    pairs = zip((docker[k] for k in sorted(docker)), (here[k] for k in sorted(here)), strict=False)
    return found + (differences(what, *next(pairs), f"{path}[]") if docker and here else [])


def _told(document: dict[str, Any], key: str) -> str:
    return _short(document[key]) if key in document else "absent"


def _short(value: Any) -> str:
    text = json.dumps(_plain(value), ensure_ascii=False)
    return text if len(text) <= 70 else text[:67] + "…"


def _plain(value: Any) -> Any:
    """Without what is another at each run."""
    if not isinstance(value, str):
        return value
    if value.startswith("0001-01-01"):
        return value
    for pattern, hole in (
        (_ID, "<ID>"),
        (_SHORT, "<id>"),
        (_AGE, "<age>"),
        (_MOMENT, "<time>"),
        (_ADDRESS, "<address>"),
    ):
        value = pattern.sub(hole, value)
    return value


def count(document: Any) -> int:
    """How many plain values it has."""
    if isinstance(document, dict):
        return sum(map(count, document.values()))
    return sum(map(count, document)) if isinstance(document, list) else 1
