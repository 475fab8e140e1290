# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.tenants [TENANTS [REQUESTS]]`: requests to a daemon of many tenants, beside one of a single tenant.

Both daemons are processes of their own, with all of REST, the console, SQLite and the ledger; machines and the host's
network are objects (those of tests/engine), since so many virtual machines do not fit a small host. Each tenant has ten
objects: five containers, two of which run, three volumes and two networks. Requests go round the tenants, to both
daemons in turns; what counts is the ratio.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.test_utils import TestServer
from tests.engine.served import Served, served
from tests.engine.stage import IMAGE, make_template

from hypercontainer.console.app import build
from hypercontainer.hyperctl.output import print_table
from hypercontainer.images.layout import Layout
from hypercontainer.serving.identity import Identity

_TENANTS, _REQUESTS = 200, 400
_CONTAINERS, _RUNNING, _VOLUMES, _NETWORKS = 5, 2, 3, 2
_OBJECTS = _CONTAINERS + _VOLUMES + _NETWORKS
_FIRST_BYTE = 0.1  # seconds: the console's goal
_HEAD = ["REQUEST", "ONE TENANT: P50", "P99", "MANY: P50", "P99", "RATIO OF P50", "OF P99"]


@dataclass
class Tenant:
    """A project, and by what it is asked for."""

    id: str
    token: str
    headers: dict[str, str] = field(default_factory=dict)
    cookie: str = ""  # of the console


# -- the daemon, in a process of its own -------------------------------------------------


async def _ask(s: Served, method: str, path: str, body: Any = None, *, token: str = "", project: str = "") -> Any:
    headers = {"Hyper-Project": project} if project else None
    got = await s.ask(method, f"/v1{path}", body, token=token, headers=headers)
    if got.status >= 400:
        raise RuntimeError(f"{method} {path}: {got.status} {got.body.decode(errors='replace')}")
    return got.json if got.body else None


async def _fill(s: Served, number: int) -> dict[str, str]:
    """One organisation with one project, and what is in it; gives the project's id and a token."""
    name = f"tenant-{number}"
    await _ask(s, "POST", "/organisations", {"name": name})
    project = (await _ask(s, "POST", "/projects", {"name": "web", "organisation": name}))["id"]
    images = s.stage.paths.images
    Layout(images, lambda: project).set_name(IMAGE, Layout(images, lambda: "").names()[IMAGE])
    request = {"name": "all", "scopes": ["operate", "manage", "audit"]}
    token = (await _ask(s, "POST", "/tokens", request, project=project))["secret"]
    for index in range(_NETWORKS):
        await _ask(s, "POST", "/networks", {"name": f"net-{index}"}, token=token)
    for index in range(_VOLUMES):
        await _ask(s, "POST", "/volumes", {"name": f"data-{index}"}, token=token)
    for index in range(_CONTAINERS):
        spec = {"image": IMAGE, "name": f"box-{index}", "network": "net-0"}
        await _ask(s, "POST", "/containers", spec, token=token)
        if index < _RUNNING:
            await _ask(s, "POST", f"/containers/box-{index}/start", token=token)
    return {"id": project, "token": token}


async def _serve(tenants: int) -> None:
    """Until its input ends; says first where it listens, and who there is."""
    with tempfile.TemporaryDirectory(prefix="hyt") as place:
        template = Path(place)
        make_template(template)
        async with served(template, own_images=True, network="bridge") as s:
            engine = s.stage.engine
            made = [await _fill(s, number) for number in range(tenants)]
            async with TestServer(build(engine, Identity(engine.tokens, {}, engine.tenancy.entry))) as console:
                print(
                    json.dumps({"socket": str(s.path), "console": str(console.make_url("/")), "of": made}), flush=True
                )
                await asyncio.to_thread(sys.stdin.read)


@dataclass
class Daemon:
    """One that serves so many."""

    socket: str
    console: str
    tenants: list[Tenant]
    rest: aiohttp.ClientSession
    browser: aiohttp.ClientSession
    turn: int = 0

    def next(self) -> Tenant:
        self.turn += 1
        return self.tenants[self.turn % len(self.tenants)]


@contextlib.contextmanager
def _process(tenants: int) -> Iterator[dict[str, Any]]:
    command = [sys.executable, "-m", "bench.tenants", "serve", str(tenants)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    try:
        if not (line := process.stdout.readline()):
            raise RuntimeError(f"the daemon of {tenants} tenants did not start")
        yield json.loads(line)
    finally:
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextlib.asynccontextmanager
async def _daemon(tenants: int) -> AsyncIterator[Daemon]:
    with _process(tenants) as told:
        async with (
            aiohttp.ClientSession("http://x", connector=aiohttp.UnixConnector(told["socket"])) as rest,
            aiohttp.ClientSession(told["console"], cookie_jar=aiohttp.DummyCookieJar()) as browser,
        ):
            made = [Tenant(t["id"], t["token"], {"Authorization": f"Bearer {t['token']}"}) for t in told["of"]]
            for tenant in made:
                form = {"token": tenant.token}
                async with browser.post("/login", data=form, allow_redirects=False) as answer:
                    tenant.cookie = answer.headers["Set-Cookie"].partition(";")[0]
            yield Daemon(told["socket"], told["console"], made, rest, browser)


# -- requests -----------------------------------------------------------------------------

Request = Callable[[Daemon], Coroutine[Any, Any, float]]


async def _timed(d: Daemon, method: str, path: str, tenant: Tenant, body: Any = None) -> float:
    """Seconds until the answer's end."""
    begin = time.perf_counter()
    async with d.rest.request(method, f"/v1{path}", json=body, headers=tenant.headers) as answer:
        text = await answer.read()
    taken = time.perf_counter() - begin
    if answer.status >= 400:
        raise RuntimeError(f"{method} {path}: {answer.status} {text.decode(errors='replace')}")
    return taken


def _get(path: str) -> Request:
    async def request(d: Daemon) -> float:
        return await _timed(d, "GET", path, d.next())

    return request


async def _create(d: Daemon) -> float:
    """What is removed afterwards, so that there are as many as before."""
    tenant = d.next()
    taken = await _timed(d, "POST", "/containers", tenant, {"image": IMAGE, "name": "one-more", "network": "net-0"})
    await _timed(d, "DELETE", "/containers/one-more", tenant)
    return taken


async def _start(d: Daemon) -> float:
    """Of a container that is there; it is stopped afterwards."""
    tenant = d.next()
    taken = await _timed(d, "POST", f"/containers/box-{_CONTAINERS - 1}/start", tenant)
    await _timed(d, "POST", f"/containers/box-{_CONTAINERS - 1}/kill?signal=KILL", tenant)
    await _timed(d, "POST", f"/containers/box-{_CONTAINERS - 1}/wait", tenant)
    return taken


def _page(name: str) -> Request:
    async def request(d: Daemon) -> float:
        """Seconds until the answer's first byte."""
        tenant = d.next()
        begin = time.perf_counter()
        async with d.browser.get(f"/p/{tenant.id}/{name}", headers={"Cookie": tenant.cookie}) as answer:
            taken = time.perf_counter() - begin
            await answer.read()
        if answer.status != 200:
            raise RuntimeError(f"console {name}: {answer.status}")
        return taken

    return request


REQUESTS: dict[str, Request] = {
    "list of containers": _get("/containers?all=1"),
    "list of volumes": _get("/volumes"),
    "list of networks": _get("/networks"),
    "list of images": _get("/images"),
    "inspect a container": _get("/containers/box-0"),
    "past events": _get("/events?past=1"),
    "usage of a month": _get("/usage?by=size,day"),
    "quota": _get("/quota"),
    "create a container": _create,
    "start a container": _start,
    **{f"console: {name}": _page(name) for name in ("containers", "networks", "usage", "events")},
}


async def _measure(one: Daemon, many: Daemon, count: int) -> Iterator[tuple[str, list[float], list[float]]]:
    found = {name: ([0.0] * 0, [0.0] * 0) for name in REQUESTS}
    for name, request in REQUESTS.items():
        for index in range(-8, count):
            for number in (0, 1) if index % 2 else (1, 0):
                taken = await request((one, many)[number])
                if index >= 0:
                    found[name][number].append(taken)
    return ((name, *times) for name, times in found.items())


def _percentile(times: list[float], of: int) -> float:
    return statistics.quantiles(times, n=100)[of - 1]


def _row(name: str, one: list[float], many: list[float]) -> list[str]:
    p50, p99 = ((_percentile(one, of), _percentile(many, of)) for of in (50, 99))
    return [
        name, *(f"{1000 * x:.1f} ms" for x in (p50[0], p99[0], p50[1], p99[1])), f"{p50[1] / p50[0]:.2f}",
        f"{p99[1] / p99[0]:.2f}",
    ]  # fmt: skip


async def _run(tenants: int, count: int) -> int:
    begin = time.perf_counter()
    async with _daemon(1) as one, _daemon(tenants) as many:
        print(f"{tenants} tenants with {tenants * _OBJECTS} objects made in {time.perf_counter() - begin:.0f} s")
        rows = list(await _measure(one, many, count))
        print_table(_HEAD, [_row(*row) for row in rows])
        slowest = max(_percentile(many_, 99) for name, _, many_ in rows if name.startswith("console"))
        met = "met" if slowest <= _FIRST_BYTE else "missed"
        print(f"console's first byte, p99 of its slowest page: {1000 * slowest:.1f} ms; goal {_FIRST_BYTE:g} s, {met}")
        async with many.rest.get("/v1/usage/check") as answer:
            ledger = await answer.json()
        print(f"ledger: {ledger['entries']} entries, {'exact' if not ledger.get('wrong') else ledger['wrong']}")
    return 1 if ledger.get("wrong") else 0


def main() -> int:
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(_serve(int(sys.argv[2])))
        return 0
    given = [int(x) for x in sys.argv[1:]]
    return asyncio.run(_run(*(given + [_TENANTS, _REQUESTS][len(given) :])))


if __name__ == "__main__":
    sys.exit(main())
