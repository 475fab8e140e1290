# SPDX-License-Identifier: Apache-2.0
"""The REST API against the document that it serves."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest

from hypercontainer.client.transport import Connection

from .conftest import Daemon


class Api:
    """Calls, each checked against the OpenAPI document."""

    def __init__(self, daemon: Daemon) -> None:
        self._path = str(daemon.socket)
        self.document = json.loads(self.raw("GET", "/v1/openapi.json")[1])

    def raw(self, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
        response = Connection(self._path).request(method, target, {}, body)
        return response.status, response.read()

    def call(self, method: str, target: str, body: object = None) -> tuple[int, Any]:
        """Status and decoded answer; the answer must be what the document says."""
        status, data = self.raw(method, f"/v1{target}", b"" if body is None else json.dumps(body).encode())
        path = target.partition("?")[0]
        template = next(t for t in self.document["paths"] if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", t), f"/v1{path}"))
        responses = self.document["paths"][template][method.lower()]["responses"]
        described = responses.get(str(status), responses["default"])
        content = described.get("content", {}).get("application/json")
        answer = json.loads(data) if content else None
        if content:
            schema = {**content["schema"], "components": self.document["components"]}
            jsonschema.validate(answer, schema)
        else:
            assert data == b""
        return status, answer


@pytest.fixture
def api(hyper: Daemon) -> Api:
    return Api(hyper)


def test_document_is_openapi(api: Api) -> None:
    assert api.document["openapi"] == "3.1.0"
    assert len(api.document["paths"]) >= 25
    refs = re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(api.document))
    assert refs and set(refs) <= set(api.document["components"]["schemas"])


def test_a_life_over_rest(api: Api) -> None:
    status, made = api.call("POST", "/containers", {"image": "busybox", "command": ["sleep", "1000"], "name": "rest"})
    assert status == 201 and made["state"]["status"] == "created"
    assert api.call("POST", "/containers/rest/start") == (200, {"changed": True})
    assert api.call("POST", "/containers/rest/start") == (200, {"changed": False})
    assert api.call("GET", "/containers/rest")[1]["state"]["status"] == "running"
    assert [c["name"] for c in api.call("GET", "/containers")[1]] == ["rest"]
    assert api.call("GET", "/containers/rest/top")[1][0]["command"] == "sleep 1000"
    assert api.call("GET", "/containers/rest/stats")[1]["pids"] == 1
    assert api.call("GET", "/containers/rest/archive/stat?path=/etc")[1]["isDir"] is True
    assert api.call("GET", "/pods")[1][0]["status"] == "running"
    status, exec_ = api.call("POST", "/containers/rest/exec", {"command": ["true"], "detach": True})
    assert status == 201
    assert api.raw("POST", f"/v1/execs/{exec_['id']}/start")[0] == 204
    assert api.call("POST", "/containers/rest/pause") == (204, None)
    assert api.call("POST", "/containers/rest/unpause") == (204, None)
    assert api.call("POST", "/containers/rest/kill?signal=KILL") == (204, None)
    assert api.call("POST", "/containers/rest/wait") == (200, {"exitCode": 137})
    assert api.call("DELETE", "/containers/rest")[0] == 200


@pytest.mark.parametrize(
    "route", ["/version", "/info", "/doctor", "/images", "/pods", "/containers?all=1", "/images/inspect?name=busybox"]
)
def test_answers_are_as_described(api: Api, route: str) -> None:
    assert api.call("GET", route)[0] == 200


@pytest.mark.parametrize(
    ("method", "route", "body", "status", "code", "words"),
    [
        ("GET", "/containers/none", None, 404, "not_found", "no such container"),
        (
            "POST",
            "/containers",
            {"image": "busybox", "colour": "red"},
            400,
            "invalid_argument",
            "unknown key 'colour'",
        ),
        (
            "POST",
            "/containers",
            {"image": "busybox", "resources": {"memory": "much"}},
            400,
            "invalid_argument",
            r"resources.memory: must be",
        ),
        ("POST", "/containers", {"image": "none:1"}, 404, "not_found", "no such image"),
        ("POST", "/containers", ["not", "an", "object"], 400, "invalid_argument", "invalid request body"),
        ("GET", "/containers/none/logs?tail=x", None, 404, "not_found", "no such container"),
        ("POST", "/containers/none/wait", None, 404, "not_found", "no such container"),
        ("GET", "/images/inspect?name=UPPER", None, 400, "invalid_argument", "invalid image reference"),
        ("GET", "/execs/none", None, 404, "not_found", "no such exec"),
    ],
)
def test_refusals(api: Api, method: str, route: str, body: object, status: int, code: str, words: str) -> None:
    got, answer = api.call(method, route, body)
    assert (got, answer["code"]) == (status, code)
    assert re.search(words, answer["message"]), answer


def test_unknown_routes_and_broken_json(api: Api) -> None:
    status, body = api.raw("GET", "/v1/nothing")
    assert status == 404 and json.loads(body)["code"] == "not_found"
    for sent in (b"{broken", b'{"image": "\xff"}', b"[" * 100_000):
        status, body = api.raw("POST", "/v1/containers", sent)
        assert status == 400 and "invalid request body" in json.loads(body)["message"], sent[:20]
