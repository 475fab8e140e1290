# SPDX-License-Identifier: Apache-2.0
"""Requests of no client over Docker's API: words, numbers and bodies of every wrong kind on each of its routes.

Whatever comes is answered, in Docker's form, and by no error of hyperd's own, whose memory stays bounded.
`HYPER_TEST_EXAMPLES=N` makes N requests of each route, others each time.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import re
import resource
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from hypercontainer.docker.app import ROUTES
from hypercontainer.docker.router import Route

from .docker_fields import CONFIG, ENDPOINT, HOST_CONFIG
from .served import Served, read_answer, served
from .test_docker_streams import run

EACH = int(os.environ.get("HYPER_TEST_EXAMPLES", "0"))
_LENT = 3.0 if EACH else 0.3  # seconds for an answer of what may be a stream, which then has begun
WORDS = ["", "a", "up", "box", "none", "..", "../../etc", "/etc/x", "a\x00b", "a\r\nX: y", "é" * 40, "a" * 3000,
         "%2e%2e", "-1", "0", "1e9", "9" * 400, "true", "{}", "[[]]", '{"name":["a"]}', '{"name":{"a":true}}',
         '{"since":["x"]}',
         "sha256:" + "0" * 64, "x:y@z", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")]  # fmt: skip
VALUES: list[Any] = [None, True, 0, -1, 1 << 31, 1 << 63, -(1 << 63), 1 << 70, 1.5, 1e300, "", "x", "a\x00b",
                     "\n", "é" * 9, "x" * 70_000, [], [None], [[]], ["x"], [1], {}, {"x": None}, {"": ""}, {"x": []},
                     {"x": {"y": 1}},
                     {"80/tcp": 1}, {"80/tcp": [None]}, {"80/tcp": [{"HostPort": -1}]}]  # fmt: skip
RAW = [b"", b" ", b"null", b"[]", b"{", b"{}x", b"[" * 100_000, b'{"a":' * 60_000, b'{"Image": "\xff"}', b"\xff\xfe",
       b"1e999", b"NaN", b'{"Image":"box","Image":["x"]}', b"\x1f\x8b\x08\x00", bytes(1024), b"-----BEGIN"]  # fmt: skip
QUERY = (
    *(
        "all",
        "force",
        "limit",
        "h",
        "w",
        "t",
        "name",
        "path",
        "signal",
        "tail",
        "since",
        "until",
        "filters",
        "platform",
    ),
    *("v", "repo", "tag", "detachKeys", "condition", "ps_args", "fromImage", "container", "changes", "scope", "size"),
    *("type", "dangling", "names", "noprune", "digests", "stdout", "stderr", "logs", "mode", "buildargs"),
)
# Which leave what others need, or last for ever by their nature: these have tests of their own.
_QUIET = {"follow": "0", "stream": "0", "timeout": "0"}
_STREAMS = re.compile(
    r"attach|/events|/session|/grpc|/wait|/logs|/stats|/exec/.*/start|/build|/export|/get$|/load|/archive"
)


def _target(route: Route, chance: random.Random) -> str:
    def word(match: re.Match[str]) -> str:
        found = chance.choice([*WORDS[1:], "a", "up", "a", "up"])
        return quote(found, safe="/" if ".+" in match[0] else "")

    path = re.sub(r"\{\w+(?::[^}]*)?\}", word, route.path) or "/"
    asked = {key: chance.choice(WORDS) for key in chance.sample(QUERY, chance.randrange(5))} | _QUIET
    return path + "?" + "&".join(f"{k}={quote(v)}" for k, v in asked.items())


def _document(chance: random.Random) -> Any:
    """Like a container's, an exec's, a network's or a volume's, with wrong parts; shared names meet by chance."""
    host = {key: chance.choice(VALUES) for key in chance.sample(sorted(HOST_CONFIG), 2)}
    ends = {"n": {key: chance.choice(VALUES) for key in chance.sample(sorted(ENDPOINT), 1)}}
    made: dict[str, Any] = {"Image": "box", "Cmd": ["true"], "HostConfig": host}
    for key in chance.sample(sorted(CONFIG), 2):
        made[key] = chance.choice(VALUES)
    extras = ("Name", "Driver", "DriverOpts", "Options", "IPAM", "Labels", "Container", "EndpointConfig", "Detach",
              "Tty", "ConsoleSize", "Privileged", "AttachStdin", "Memory", "RestartPolicy", "NetworkingConfig",
              "username", "serveraddress")  # fmt: skip
    for key in chance.sample(extras, 3):
        made[key] = chance.choice(VALUES)
    if chance.random() < 0.5:
        made["NetworkingConfig"] = {"EndpointsConfig": ends}
    return made if chance.random() < 0.9 else chance.choice(VALUES)


def _body(chance: random.Random) -> bytes:
    return chance.choice(RAW) if chance.random() < 0.4 else json.dumps(_document(chance)).encode()


async def _answered(s: Served, route: Route, chance: random.Random) -> tuple[str, int]:
    """The request, and the status of its answer; of a stream, of its head."""
    target, body = _target(route, chance), b"" if route.method in ("GET", "HEAD") else _body(chance)
    kind = chance.choice(["application/json", "text/plain", "application/x-tar", "a\x7f/é"])
    auth = chance.choice(["", "e30=", "!!", "A" * 5000, "bnVsbA==", "WzFd", "eyJ1c2VybmFtZSI6IDF9"])
    head = f"{route.method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\n"
    head += f"X-Registry-Auth: {auth}\r\nX-Registry-Config: {auth}\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await s.open(docker=True)
    try:
        writer.write(head.encode() + body)
        lent = _LENT if _STREAMS.search(route.path) else 20
        try:
            async with asyncio.timeout(lent):
                answer = await read_answer(reader, head=route.method == "HEAD")
        except TimeoutError:
            assert lent == _LENT, f"{route.method} {target}: no answer"
            return target, 0
        except asyncio.IncompleteReadError as error:
            raise AssertionError(f"{route.method} {target[:200]} {body[:200]!r}: cut off: {error.partial!r}") from error
        if answer.status >= 400 and route.method != "HEAD":
            form = answer.body.startswith(b'{"message":') or answer.headers.get("content-type", "").startswith(
                "text/plain"
            )
            assert form and len(answer.body) < 8192, (route.method, target, answer)
        return f"{target} {body[:300]!r}", answer.status
    finally:
        writer.close()


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB


async def test_nothing_that_comes_is_an_error_of_the_daemon(template: Path, caplog: pytest.LogCaptureFixture) -> None:
    seed = random.randrange(1 << 30) if EACH else 1
    chance, wrong = random.Random(seed), list[str]()
    async with served(template, own_images=True) as s:
        await run(s, "sleep", "100000")
        assert (await s.ask("POST", "/containers/create?name=up", {"Image": "box"}, docker=True)).status == 201
        before = _memory()
        with caplog.at_level(logging.ERROR):
            for route in ROUTES:
                for _ in range(EACH or 4):
                    asked, status = await _answered(s, route, chance)
                    failed = [r for r in caplog.records if "failed" in r.getMessage() and r.exc_info]
                    if status == 500 or failed:
                        told = repr(failed[0].exc_info[1]) if failed and failed[0].exc_info else ""
                        wrong.append(f"{route.method} {asked}: {status} {told}")
                    caplog.clear()
        assert not wrong, f"seed {seed}\n" + "\n".join(wrong)
        assert (await s.ask("GET", "/_ping", docker=True)).body == b"OK"
        assert _memory() - before < (64 << 10) + 32 * EACH * len(ROUTES)  # KiB; each makes something that stays
        assert (await s.ask("GET", "/containers/json?all=1", docker=True)).status == 200


async def test_nothing_is_kept_of_what_was_refused(template: Path) -> None:
    """Not the request, nor what came with it."""
    async with served(template) as s:
        for target in ("/swarm", "/plugins/x", "/containers/x/checkpoints", "/containers/none/json", "/nowhere"):
            for _ in range(20):
                assert (await s.ask("GET", target, docker=True)).status >= 400
        gc.collect()
        assert sum(isinstance(each, web.Request) for each in gc.get_objects()) < 20
