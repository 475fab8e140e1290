# SPDX-License-Identifier: Apache-2.0
"""Docker's Engine API: versions, who it is, what is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from .served import served


async def test_ping_says_which_version_is_spoken(template: Path) -> None:
    async with served(template) as s:
        for method, body in (("GET", b"OK"), ("HEAD", b"")):
            for path in ("/_ping", "/v1.24/_ping"):
                answer = await s.ask(method, path, docker=True)
                assert (answer.status, answer.body) == (200, body)
                assert answer.headers["api-version"] == "1.51"
                assert answer.headers["ostype"] == "linux"
                assert answer.headers["builder-version"] == "2"


async def test_version(template: Path) -> None:
    async with served(template) as s:
        found = (await s.ask("GET", "/v1.40/version", docker=True)).json
        assert (found["ApiVersion"], found["MinAPIVersion"], found["Os"]) == ("1.51", "1.24", "linux")
        assert int(found["Version"].split(".")[0]) >= 25  # what compose and DDEV ask for
        assert [c["Name"] for c in found["Components"]][:2] == ["Engine", "hyperd"]


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/v1.23/version", 400, "client version 1.23 is too old. Minimum supported API version is 1.24"),
        ("/v1.99/version", 400, "client version 1.99 is too new. Maximum supported API version is 1.51"),
        ("/v1.40/nothing", 404, "page not found"),
        ("/nothing", 404, "page not found"),
        ("/v1.40/swarm", 503, "no swarm"),
        ("/v1.40/services/x/update", 503, "no swarm"),
        ("/v1.40/plugins/pull", 501, "no plugins"),
        ("/v1.40/plugins/x/json", 404, 'plugin "x" not found'),
        ("/v1.40/containers/x/checkpoints", 501, "no checkpoints"),
    ],
)
async def test_what_is_not_there(template: Path, path: str, status: int, message: str) -> None:
    async with served(template) as s:
        answer = await s.ask("GET", path, docker=True)
        assert answer.status == status
        assert list(answer.json) == ["message"]
        assert message in answer.json["message"]


async def test_a_token_with_too_little_is_refused(template: Path) -> None:
    async with served(template) as s:
        answer = await s.ask("POST", "/v1.40/swarm/init", token="none", docker=True)
        assert answer.status == 401
        answer = await s.ask("GET", "/v1.40/version", token=s.token("read"), docker=True)
        assert answer.status == 200
