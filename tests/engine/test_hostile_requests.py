# SPDX-License-Identifier: Apache-2.0
"""Names, paths, labels, hosts and addresses that want to be something else: refused in a sentence, or only text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hypercontainer.model.principal import SCOPES
from hypercontainer.model.specs import ExecSpec

from .served import Served, served
from .stage import IMAGE

POD: dict[str, Any] = {"id": "p", "containers": [{"image": IMAGE, "name": "c"}]}
# What would leave a directory, end a line, begin an option, or cut a string of C.
WORDS = [
    "../../../etc/x",
    "/etc/x",
    "..",
    ".",
    "a/b",
    "a\nb",
    "a\r\nX: y",
    "-rf",
    "a b",
    "a\x00b",
    "a;reboot",
    "$(x)",
    "é",
    " ",
]


def container(**more: Any) -> tuple[str, str, dict[str, Any]]:
    return "POST", "/containers", {"image": IMAGE, **more}


def pod(**more: Any) -> tuple[str, str, dict[str, Any]]:
    return "POST", "/pods", POD | more


def each(word: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Requests with the word where it becomes a name of a file, of a rule, or of a line."""
    return [
        container(name=word),
        container(hostname=word),
        container(networks=[{"name": "bridge", "aliases": [word]}]),
        container(networks=[{"name": "bridge", "mac": word}]),
        container(networks=[{"name": "bridge", "ip": word}]),
        container(hosts=[{"ip": "10.0.0.1", "names": [word]}]),
        container(hosts=[{"ip": word, "names": ["x"]}]),
        container(dns=[word]),
        container(dnsSearch=[word]),
        container(allow=[{"cidr": word}]),
        container(ports=[{"containerPort": 80, "hostIp": word}]),
        container(mounts=[{"target": "/x", "source": word}]),
        container(driver=word),
        container(image=word),
        pod(id=word),
        pod(hostname=word),
        pod(secrets=[{"name": word, "content": "x"}]),
        pod(volumes=[{"name": word}]),
        pod(interfaces=[{"bridge": word, "ip": "10.0.0.2/24"}]),
        pod(interfaces=[{"mac": word}]),
        pod(interfaces=[{"ifname": word}]),
        pod(services=[{"serviceip": word, "serviceport": 80}]),
        pod(portmappingWhiteLists={"internalNetworks": [word]}),
        pod(dns=[word]),
        ("POST", "/volumes", {"name": word}),
        ("POST", "/networks", {"name": word}),
        ("POST", "/networks", {"name": "n", "subnets": [word]}),
        ("POST", "/tokens", {"name": word, "scopes": ["read"]}),
    ]


async def outside(s: Served) -> set[str]:
    """What lies beside the daemon's root."""
    return {str(p) for p in s.stage.paths.root.parent.glob("*")}


@pytest.mark.parametrize("word", WORDS, ids=ascii)
async def test_words_stay_words(template: Path, word: str) -> None:
    async with served(template) as s:
        token, before = s.token(*SCOPES), await outside(s)
        for method, path, body in each(word):
            got = await s.ask(method, f"/v1{path}", body, token=token)
            assert got.status != 500, (body, got.body)
            assert got.status >= 400 or harmless(body, word), (body, got.body)
            if got.status >= 400:
                assert got.json["code"] != "internal" and b"\r" not in got.body
        assert await outside(s) == before


PLACES = ("hostname", "aliases", "names", "dnsSearch")


def harmless(body: dict[str, Any], word: str) -> bool:
    """Whether it is a place of names in /etc/hosts, resolv.conf or DNS, which take whatever ends no word or line."""
    return word.isprintable() and " " not in word and any(f"'{place}'" in repr(body) for place in PLACES)


@pytest.mark.parametrize(
    "path",
    [
        "/containers/..%2f..%2fetc%2fpasswd", "/containers/%00", "/containers/%0a", "/volumes/..%2f..%2fetc",
        "/volumes/%2fetc", "/networks/..%2f..", "/pods/%2e%2e", "/execs/..%2f", "/tokens/..%2f",
        "/set-aside/..%2f..%2fetc",
        "/images?name=..%2f..%2fetc&force=1", "/volumes/..?force=1", "/volumes/%2e%2e%2fkeys?force=1",
    ],
)  # fmt: skip
async def test_names_in_paths_stay_names(template: Path, path: str) -> None:
    async with served(template) as s:
        for method in ("GET", "DELETE"):
            if (method, path[:8]) == ("GET", "/images?"):
                continue  # the list
            got = await s.ask(method, f"/v1{path}")
            assert got.status in (204, 400, 404, 405), (method, got.body)
        assert s.stage.paths.volumes.is_dir() and s.stage.paths.database.exists()


async def test_labels_and_environment_are_only_text(template: Path) -> None:
    async with served(template) as s:
        for word in WORDS:
            if "\x00" in word:
                continue
            body = {"image": IMAGE, "labels": {word: word}, "env": [f"A={word}"]}
            made = await s.ask("POST", "/v1/containers", body)
            assert made.status == 201, made.body
            seen = await s.ask("GET", f"/v1/containers/{made.json['id']}")
            assert seen.json["spec"]["labels"] == {word: word}


async def test_headers_do_not_come_back(template: Path) -> None:
    async with served(template) as s:
        got = await s.ask("GET", "/v1/none%0d%0aSet-Cookie:%20a=b", headers={"X-Request-Id": "mine", "Host": "evil"})
        assert "set-cookie" not in got.headers and got.headers["hyper-request-id"] != "mine"
        assert b"evil" not in got.body


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b"0 x", b'{"image": "\xff"}', b"\xff", b"null", b'{"image": 1e999}', b"", b'{"image":"a"} x'],
)
async def test_what_is_no_request_is_said(template: Path, body: bytes) -> None:
    async with served(template) as s:
        for path in ("/containers", "/factory/warm", "/pods", "/volumes", "/networks", "/tokens"):
            got = await s.ask("POST", f"/v1{path}", body)
            assert got.status == 400 and got.json["code"] == "invalid_argument", (path, got.body)


async def test_what_has_no_terminal_has_no_size(template: Path) -> None:
    async with served(template) as s:
        assert (await s.ask("POST", "/v1/containers?start=1", {"image": IMAGE, "name": "box"})).status < 300
        answer = await s.ask("POST", "/v1/containers/box/resize", {"rows": 24, "columns": 80})
        assert answer.status == 409 and answer.json["message"] == "container box has no terminal", answer.body
        exec_ = s.stage.engine.execs.create("box", ExecSpec(command=["sleep", "1000"]))
        await s.stage.call(s.stage.engine.execs.start(exec_))
        answer = await s.ask("POST", f"/exec/{exec_.id}/resize?h=24&w=80", docker=True)
        assert answer.status == 409 and "has no terminal" in answer.json["message"], answer.body


async def test_a_terminal_has_16_bits_in_each_direction(template: Path) -> None:
    async with served(template) as s:
        assert (
            await s.ask("POST", "/v1/containers?start=1", {"image": IMAGE, "name": "box", "tty": True})
        ).status < 300
        for size in ({"rows": 1 << 16, "columns": 80}, {"rows": 24, "columns": -1}):
            answer = await s.ask("POST", "/v1/containers/box/resize", size)
            assert answer.status == 400, answer.body
        upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
        answer = await s.ask("POST", f"/v1/containers/box/attach?rows={1 << 16}&columns=80", headers=upgrade)
        assert answer.status == 400 and "65536 rows" in answer.body.decode(), answer.body
        assert (await s.ask("POST", "/v1/containers/box/resize", {"rows": (1 << 16) - 1, "columns": 80})).status == 204
