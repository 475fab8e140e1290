# SPDX-License-Identifier: Apache-2.0
"""The server for E2B's clients: what they may call, and who may."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import e2b
import httpx
import msgspec
import pytest
from aiohttp import web
from e2b.envd.filesystem.filesystem_connect import Filesystem
from e2b.envd.process.process_connect import Process
from e2b.sandbox.signature import get_signature
from e2b.sandbox_sync.commands.command import Commands
from e2b.sandbox_sync.commands.pty import Pty
from e2b.sandbox_sync.filesystem import filesystem as e2b_filesystem
from e2b.template.main import TemplateBuilder

from hypercontainer.errors import InvalidArgument, NoSpace, NotFound, Unsupported
from hypercontainer.integrations.e2b import files, filesystem, process
from hypercontainer.integrations.e2b.book import Book, Entry
from hypercontainer.integrations.e2b.connect import Call, answer_stream
from hypercontainer.integrations.e2b.control import _cpu_percent
from hypercontainer.integrations.e2b.network import read_change
from hypercontainer.integrations.e2b.server import Server
from hypercontainer.integrations.e2b.terms import LABEL, Terms, access_token, read_terms, read_wanted, time_of
from hypercontainer.model.statistics import ContainerStats
from hypercontainer.model.status import Container
from hypercontainer.sdk import AsyncSandbox
from hypercontainer.sdk.api import Api

from .test_sdk import CONTAINER

KEY = "a key"


async def _hyperd(request: web.Request) -> web.Response:
    """One that has no sandboxes."""
    if request.path.endswith(("/containers", "/pods")):
        return web.json_response([])
    return web.json_response({"code": "not_found", "message": "there is none"}, status=404)


async def _serve(socket: Path, ready: Any, end: asyncio.Event) -> None:
    hyperd = web.Application()
    hyperd.router.add_route("*", "/{any:.*}", _hyperd)
    behind, runner = web.AppRunner(hyperd), None
    await behind.setup()
    await web.UnixSite(behind, str(socket)).start()
    runner = web.AppRunner(Server(KEY, host=str(socket), image="busybox").application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    ready(asyncio.get_running_loop(), runner.addresses[0][1])
    await end.wait()
    await runner.cleanup()
    await behind.cleanup()


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The server, before a hyperd that has no sandboxes."""
    end, started, at = asyncio.Event(), threading.Event(), {}

    def ready(loop: asyncio.AbstractEventLoop, port: int) -> None:
        at.update(loop=loop, port=port)
        started.set()

    thread = threading.Thread(target=lambda: asyncio.run(_serve(tmp_path / "hyper.sock", ready, end)))
    thread.start()
    assert started.wait(30)
    yield f"http://127.0.0.1:{at['port']}"
    at["loop"].call_soon_threadsafe(end.set)
    thread.join(30)


def test_all_that_their_clients_call_is_there() -> None:
    for service, ours in ((Process, process), (Filesystem, filesystem)):
        methods = {m.name for m in service.desc().methods}
        assert methods == {*ours.UNARY, *ours.SERVER_STREAMS, *getattr(ours, "CLIENT_STREAMS", {})}


def test_all_that_their_package_offers_is_in_the_list(repository: Path) -> None:
    page = (repository / "docs/sdk.md").read_text()
    told = set(re.findall(r"`(?:\w+\.)?(\w+)`", page[page.index("## E2B") : page.index("## Tools for")]))
    kinds = (
        e2b.Sandbox, Commands, Pty, e2b_filesystem.Filesystem, e2b.Git, e2b.CommandHandle, e2b.WatchHandle,
        e2b.Template, TemplateBuilder,
    )  # fmt: skip
    offered = {name for kind in kinds for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")}
    assert offered - told == set()


def test_what_of_the_processors_is_used() -> None:
    entry, stats = Entry(AsyncSandbox(Api("/none"), CONTAINER), Terms("x")), {"cpu_usec": 500_000, "vcpus": 2}
    started = msgspec.structs.replace(CONTAINER.state, started_at="1970-01-01T00:00:10Z")
    container = msgspec.structs.replace(CONTAINER, state=started)
    rest = dict.fromkeys(("memory", "memory_limit", "pids", "read_bytes", "write_bytes", "rx_bytes", "tx_bytes"), 0)
    first = ContainerStats(id="", name="", read_at="", **stats, **rest)
    assert _cpu_percent(entry, first, container, 11.0) == 25.0
    assert _cpu_percent(entry, msgspec.structs.replace(first, cpu_usec=600_000), container, 12.0) == 5.0
    assert _cpu_percent(entry, first, container, 12.0) == 0.0


def test_who_may(url: str) -> None:
    options: dict[str, Any] = {"api_url": url, "sandbox_url": url, "retries": 0}
    assert e2b.Sandbox.list(api_key=KEY, **options).next_items() == []
    with pytest.raises(e2b.AuthenticationException, match="token is not right"):
        e2b.Sandbox.list(api_key="another", **options).next_items()
    with pytest.raises(e2b.SandboxNotFoundException):
        e2b.Sandbox.connect("none", api_key=KEY, **options)
    of = {"E2b-Sandbox-Id": "none"}
    assert httpx.get(f"{url}/health", headers={**of, "X-Access-Token": KEY}).status_code == 401
    right = httpx.get(f"{url}/health", headers={**of, "X-Access-Token": access_token(KEY, "none")})
    assert (right.status_code, right.json()["message"]) == (502, "sandbox none was not found")
    assert httpx.get(f"{url}/files", params={"path": "/x", "signature": "v1_x"}).status_code == 401
    assert httpx.get(f"{url}/nothing", headers={"X-API-Key": KEY}).status_code == 404
    assert httpx.post(f"{url}/v2/sandboxes", headers={"X-API-Key": KEY}, content=b"[").status_code == 400
    assert httpx.post(f"{url}/v2/sandboxes", headers={"X-API-Key": KEY}, content=b"\xff").status_code == 400


def test_the_token_of_a_sandbox_opens_nothing_else(url: str) -> None:
    """Else who has one sandbox had them all."""
    own = {"E2b-Sandbox-Id": "none", "X-Access-Token": access_token(KEY, "none")}
    calls = [
        ("GET", "/v2/sandboxes"), ("POST", "/v2/sandboxes"), ("GET", "/sandboxes/none"), ("DELETE", "/sandboxes/other"),
        ("POST", "/sandboxes/none/fork"), ("GET", "/snapshots"), ("GET", "/nothing"),
    ]  # fmt: skip
    assert {httpx.request(method, url + path, headers=own).status_code for method, path in calls} == {401}
    assert httpx.get(f"{url}/health", headers=own).status_code == 502
    old = {"path": "/x", "signature": "v1_x", "signature_expiration": "9" * 5000}
    assert httpx.get(f"{url}/files", params=old).status_code == 401


async def test_a_file_without_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(files, "FILE_MAX", 1 << 20)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(65536)

    with pytest.raises(NoSpace, match="at most"):
        await files._put(Entry(AsyncSandbox(Api("/none"), CONTAINER), Terms("x")), "/x", endless())
    assert list(tmp_path.iterdir()) == []


def test_a_sandbox_that_is_listed_while_it_is_made_is_one() -> None:
    book = Book("/none", "x")
    listed = book._enter(AsyncSandbox(Api("/none"), CONTAINER), Terms("x", timeout=1000))
    made = book._enter(AsyncSandbox(Api("/none"), CONTAINER), Terms("x", timeout=2000))
    assert made is listed and made.terms.timeout == 2000


async def test_forks_of_which_one_gets_no_time_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    book, killed = Book("/none", "x"), set[str]()
    parent, *made = (
        AsyncSandbox(Api("/none"), msgspec.structs.replace(CONTAINER, id=each * 64, pod=each * 64)) for each in "0123"
    )

    async def fork(*_: object) -> list[AsyncSandbox]:
        return made

    async def set_lifetime(sandbox: AsyncSandbox, **_: object) -> None:
        if sandbox is made[1]:
            raise NotFound("it has ended")

    async def kill(sandbox: AsyncSandbox) -> bool:
        killed.add(sandbox.id)
        return True

    async def info(_: AsyncSandbox) -> Container:
        return CONTAINER

    for name, method in (("fork", fork), ("set_lifetime", set_lifetime), ("kill", kill), ("info", info)):
        monkeypatch.setattr(AsyncSandbox, name, method)
    book._enter(parent, Terms("x"))
    with pytest.raises(NotFound, match="it has ended"):
        await book.fork(parent.id, 3, 60)
    assert killed == {sandbox.id for sandbox in made}


ALL = "0.0.0.0/0"


@pytest.mark.parametrize(
    ("asked", "allowed", "hosts"),
    [
        ({"allowOut": ["10.0.0.0/8"]}, [], []),
        ({"allowOut": ["10.1.2.3", "fd00::/8"], "denyOut": [ALL]}, ["10.1.2.3/32", "fd00::/8"], []),
        ({"allowOut": ["api.example.com", "1.1.1.1"], "denyOut": [ALL]}, ["1.1.1.1/32"], ["api.example.com"]),
        ({"denyOut": ["128.0.0.0/1"]}, ["0.0.0.0/1", "::/0"], []),
        ({"denyOut": ["::/0", "128.0.0.0/1"], "allowOut": ["200.1.1.1"]}, ["0.0.0.0/1", "200.1.1.1/32"], []),
    ],
)
def test_where_it_may_go(asked: dict[str, Any], allowed: list[str], hosts: list[str]) -> None:
    found = read_wanted({"templateID": "x", "network": asked}).reach
    assert ([e.cidr for e in found.allow], [h.host for h in found.egress.hosts] if found.egress else []) == (
        allowed, hosts
    )  # fmt: skip
    assert found.network is None


def test_where_it_may_not_go() -> None:
    assert read_wanted({"templateID": "x", "network": {"denyOut": [ALL]}}).reach.network == "none"
    left = read_wanted({"templateID": "x", "network": {"denyOut": ["10.1.2.3"]}}).reach.allow
    assert not any(ip_address("10.1.2.3") in ip_network(each.cidr) for each in left)
    assert any(ip_address("10.1.2.2") in ip_network(each.cidr) for each in left)
    for wrong in ({"denyOut": ["example.com"]}, {"denyOut": "x"}, ["x"]):
        with pytest.raises(InvalidArgument):
            read_wanted({"templateID": "x", "network": wrong})
    by_name = {"allowOut": ["a.b"], "denyOut": ["1.1.1.1"]}
    for more in ({"rules": {"a": [{}]}}, {"egressProxy": {"address": "x"}}, by_name):
        with pytest.raises(Unsupported):
            read_wanted({"templateID": "x", "network": more})


@pytest.mark.parametrize(
    ("asked", "hosts"),
    [
        ({}, None), ({"allowOut": ["a.example"]}, None), ({"allow_internet_access": True}, None),
        ({"allow_internet_access": False}, []), ({"denyOut": [ALL]}, []),
        ({"allowOut": ["a.example", "*.b.example"], "denyOut": [ALL]}, ["a.example", "*.b.example"]),
        ({"allowOut": ["a.example"], "allow_internet_access": False}, ["a.example"]),
    ],
)  # fmt: skip
def test_where_it_may_go_from_now_on(asked: dict[str, Any], hosts: list[str] | None) -> None:
    assert read_change(asked) == hosts


def test_where_it_may_not_be_sent_later() -> None:
    for asked in ({"denyOut": ["10.0.0.0/8"]}, {"allowOut": ["1.1.1.1"], "denyOut": [ALL]}, {"rules": {"a.b": [{}]}}):
        with pytest.raises(Unsupported):
            read_change(asked)


def test_what_is_not_here_is_refused_by_a_sentence(url: str) -> None:
    options: dict[str, Any] = {"api_key": KEY, "api_url": url, "retries": 0}
    calls: list[tuple[Any, str]] = [
        (lambda: e2b.Volume.create("../name", **options), "a volume's name has"),
        (lambda: e2b.Secret.create("name", "value", **options), "`hyperctl run --inject-secret`"),
        (lambda: e2b.Secret.list(**options).next_items(), "`hyperctl run --inject-secret`"),
    ]
    for call, says in calls:
        with pytest.raises(Exception, match=says):
            call()
    assert httpx.get(f"{url}/secrets").status_code == 401
    for path in ("/templates", "/v2/templates", "/templates/name", "/templates/name/tags/groups", "/default-templates"):
        answer = httpx.get(url + path, headers={"X-API-Key": KEY})
        assert answer.status_code == 400 and "`hyperctl images` lists them" in answer.json()["message"]


def test_the_time_of_a_file_is_any() -> None:
    assert time_of(1 << 62).startswith("9999-") and time_of(-(1 << 62)).startswith("0001-")


def test_the_signature_of_an_address_is_theirs() -> None:
    assert get_signature("/x", "read", None, access_token(KEY, "id"))["signature"].startswith("v1_")


def test_what_is_asked_for() -> None:
    wanted = read_wanted({"templateID": "base", "metadata": {"a": "b"}, "envVars": {"X": "1"}, "autoPause": False})
    assert wanted.terms == Terms("base", kill=True, metadata={"a": "b"}) and wanted.env == {"X": "1"}
    assert read_terms({LABEL: wanted.terms.label()}) == wanted.terms
    assert read_terms({}) is None and read_terms({LABEL: "nonsense"}) is None
    assert not read_wanted({"templateID": "base"}).terms.kill, "a timeout pauses, unless it is asked to kill"
    assert read_wanted({"templateID": "x", "allow_internet_access": False}).reach.network == "none"
    for wrong in (
        {},
        {"templateID": "oci:/etc"},
        {"templateID": "x", "autoResume": True},
        {"templateID": "x", "timeout": -1},
        {"templateID": "x", "metadata": {"a": 1}},
    ):
        with pytest.raises(InvalidArgument):
            read_wanted(wrong)
    with pytest.raises(Unsupported, match="iam"):
        read_wanted({"templateID": "x", "iam": {"tokens": {}}})


async def test_an_answer_begins_when_the_request_has_ended() -> None:
    """Some clients send no more of it then."""

    async def events(call: Call) -> AsyncIterator[dict[str, Any]]:
        yield await call.message()

    async def handle(request: web.Request) -> web.StreamResponse:
        return await answer_stream(Call(request), events, {})

    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0])
    body = struct.pack(">BI", 0, 7) + b'{"a":1}'
    head = (
        f"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/connect+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode())
    answer = asyncio.create_task(reader.read(1))
    done, _ = await asyncio.wait({answer}, timeout=0.2)
    assert not done
    writer.write(body)
    assert await answer == b"H" and b'{"a": 1}' in await reader.readuntil(b"}")
    writer.close()
    await runner.cleanup()


def test_a_stream_that_is_refused_says_why(url: str) -> None:
    headers = {
        "E2b-Sandbox-Id": "none", "X-Access-Token": access_token(KEY, "none"),
        "Content-Type": "application/connect+json",
    }  # fmt: skip
    body = struct.pack(">BI", 0, 2) + b"{}"
    answer = httpx.post(f"{url}/process.Process/Start", headers=headers, content=body)
    assert answer.status_code == 502 and "was not found" in json.loads(answer.text)["message"]
