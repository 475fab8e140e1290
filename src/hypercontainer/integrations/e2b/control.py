# SPDX-License-Identifier: Apache-2.0
"""The sandboxes themselves: routes of E2B's REST API."""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from aiohttp import web

from ...client.base import container_route, snapshot_route
from ...errors import InvalidArgument, Unsupported
from ...model.snapshots import SnapshotInfo
from ...model.statistics import ContainerStats
from ...model.status import Container, ContainerSize, ContainerStatus
from ...sdk.api import Api
from .bodies import read_body
from .book import Book, Entry
from .building import Building
from .builds import Builds
from .network import read_change
from .terms import is_snapshot, made_view, read_timeout, read_wanted, time_of, view
from .volumes import Volumes

_PAGE = 100
_FORKS_MAX = 100
_BUILDS = "clients build templates here, by name, and tag them; `hyperctl images` lists them, and other images"
_SECRETS = "secrets are given to a container here, by `hyperctl run --inject-secret`"
_NOT_HERE = {
    "/templates{rest:.*}": _BUILDS, "/v2/templates{rest:.*}": _BUILDS, "/default-templates": _BUILDS,
    "/secrets{rest:.*}": _SECRETS,
}  # fmt: skip


class Control:
    """Its routes."""

    def __init__(self, book: Book, token: str, api: Api) -> None:
        self._book = book
        self._token = token
        self._api = api
        self._volumes = Volumes(token, api)
        self._builds = Builds(book.host, api, book.templates, book.image)
        self._building = Building(self._builds, book.templates, token)

    async def close(self) -> None:
        """End the builds that are under way."""
        await self._builds.close()

    def routes(self) -> list[web.RouteDef]:
        """All of them; those without `v2` are of older clients."""
        one = "/sandboxes/{id}"
        return [
            *(web.post(path, self.create) for path in ("/v2/sandboxes", "/sandboxes")),
            *(web.get(path, self.list) for path in ("/v2/sandboxes", "/sandboxes")),
            *(web.post(f"{v}{one}/{verb}", self.connect)
              for v, verb in (("/v2", "connect"), ("", "connect"), ("", "resume"))),
            web.get(one, self.get), web.delete(one, self.kill), web.post(f"{one}/timeout", self.timeout),
            web.post(f"{one}/refreshes", self.refresh), web.post(f"{one}/pause", self.pause),
            web.post(f"{one}/fork", self.fork), web.get(f"{one}/metrics", self.metrics),
            web.post(f"{one}/snapshots", self.snapshot), web.get("/snapshots", self.snapshots),
            web.delete("/templates/{id}", self.remove_template), web.put(f"{one}/network", self.network),
            *self._building.routes(), *self._volumes.routes(),
            *(web.route("*", path, refused(why)) for path, why in _NOT_HERE.items()),
        ]  # fmt: skip

    def _made(self, entry: Entry) -> dict[str, Any]:
        return made_view(entry.sandbox.id, entry.terms, self._token)

    async def create(self, request: web.Request) -> web.Response:
        """A new one."""
        body = await read_body(request)
        entry = await self._book.create(read_wanted(body), await self._volumes.mounts(body.get("volumeMounts")))
        return web.json_response(self._made(entry), status=201)

    async def list(self, request: web.Request) -> web.Response:
        """Page by page; by state, metadata and template."""
        query = request.query
        states = set(filter(None, query.get("state", "running,paused").split(",")))
        wanted = urllib.parse.parse_qsl(query.get("metadata", ""))
        ends = await self._book.ends()
        found = [
            view(container, entry.terms, ends.get(container.pod))
            for entry, container in await self._book.all()
            if all(entry.terms.metadata.get(k) == v for k, v in wanted)
            and query.get("template") in (None, entry.terms.template)
            and container.created_at >= query.get("startedAfter", "")
        ]
        found = [each for each in found if each["state"] in states]
        if query.get("order") == "asc":
            found.reverse()
        return _page(found, query)

    async def get(self, request: web.Request) -> web.Response:
        """All of one."""
        entry, container = await self._book.find(request.match_info["id"])
        end = await self._book.end(container)
        return web.json_response(view(container, entry.terms, end, self._token))

    async def kill(self, request: web.Request) -> web.Response:
        """End it."""
        await self._book.kill(request.match_info["id"])
        return web.Response(status=204)

    async def timeout(self, request: web.Request) -> web.Response:
        """Seconds from now."""
        seconds = read_timeout(await read_body(request))
        entry, _ = await self._book.find(request.match_info["id"])
        await self._book.set_time(entry, seconds)
        return web.Response(status=204)

    async def refresh(self, request: web.Request) -> web.Response:
        """More time, where there is less."""
        body = await read_body(request)
        seconds = read_timeout({"timeout": body.get("duration", 60)})
        entry, container = await self._book.find(request.match_info["id"])
        end = await self._book.end(container)
        if end and time.time() + seconds > end.timestamp():
            await self._book.set_time(entry, seconds)
        return web.Response(status=204)

    async def pause(self, request: web.Request) -> web.Response:
        """Let it stand still."""
        if (await read_body(request)).get("memory") is False:
            raise Unsupported("a sandbox is paused with its memory, not without")
        if not await self._book.pause(request.match_info["id"]):
            return web.json_response({"code": 409, "message": "the sandbox is paused already"}, status=409)
        return web.Response(status=204)

    async def connect(self, request: web.Request) -> web.Response:
        """Let it go on, if it stands still."""
        body = await read_body(request)
        seconds = read_timeout(body) if "timeout" in body else None
        entry, resumed = await self._book.resume(request.match_info["id"], seconds)
        return web.json_response(self._made(entry), status=201 if resumed else 200)

    async def network(self, request: web.Request) -> web.Response:
        """Where it may go from now on; what is left out of it is not limited any more."""
        hosts = read_change(await read_body(request))
        entry, container = await self._book.find(request.match_info["id"])
        if container.spec.allow:
            raise Unsupported("where a sandbox may go by addresses is said when it is created, and stays")
        await entry.sandbox.set_egress(hosts)
        return web.Response(status=204)

    async def fork(self, request: web.Request) -> web.Response:
        """New ones that go on where it is."""
        body = await read_body(request)
        count = body.get("count", 1)
        if not isinstance(count, int) or not 1 <= count <= _FORKS_MAX:
            raise InvalidArgument(f"a fork makes 1 to {_FORKS_MAX} sandboxes")
        made = await self._book.fork(request.match_info["id"], count, read_timeout(body))
        return web.json_response([{"sandbox": self._made(entry)} for entry in made], status=201)

    async def metrics(self, request: web.Request) -> web.Response:
        """What it uses now, as the only sample: none are kept."""
        entry, container = await self._book.find(request.match_info["id"])
        if container.state.status is not ContainerStatus.RUNNING:
            return web.json_response([])
        found = await entry.sandbox.metrics()
        size = await self._api.call(ContainerSize, "GET", container_route(container.id, "/size"))
        now = time.time()
        sample = {
            "timestamp": time_of(now), "timestampUnix": int(now), "cpuCount": found.vcpus,
            "cpuUsedPct": _cpu_percent(entry, found, container, now),
            "memUsed": found.memory, "memTotal": found.memory_limit,
            "memCache": found.memory_details.get("inactive_file", 0), "diskUsed": size.own, "diskTotal": 0,
        }  # fmt: skip
        return web.json_response([sample])

    async def snapshot(self, request: web.Request) -> web.Response:
        """Save it; its id is a template."""
        entry, _ = await self._book.find(request.match_info["id"])
        made = await entry.sandbox.snapshot(str((await read_body(request)).get("name") or ""))
        return web.json_response({"snapshotID": made.id, "names": [made.name]}, status=201)

    async def snapshots(self, request: web.Request) -> web.Response:
        """What is saved; of one sandbox, by a name."""
        query = request.query
        found = await self._api.call(list[SnapshotInfo], "GET", "/snapshots")
        if of := query.get("sandboxID"):
            _, container = await self._book.find(of)
            found = [s for s in found if s.pod_id == container.pod]
        views = [{"snapshotID": s.id, "names": [s.name]} for s in found if query.get("name") in (None, s.name)]
        return _page(views, query)

    async def remove_template(self, request: web.Request) -> web.Response:
        """A snapshot by its id, or what a client has built, with all of its tags."""
        id_ = request.match_info["id"]
        if is_snapshot(id_):
            await self._api.do("DELETE", snapshot_route(id_))
        else:
            await self._book.templates.untag(id_)
        return web.Response(status=204)


def refused(why: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """What answers all that there is not here."""

    async def handle(_: web.Request) -> web.StreamResponse:
        raise Unsupported(why)

    return handle


def _cpu_percent(entry: Entry, found: ContainerStats, container: Container, now: float) -> float:
    """Of all its processors, since it was asked for last; the first time, since its start."""
    began, before = entry.cpu if entry.cpu[0] else (datetime.fromisoformat(container.state.started_at).timestamp(), 0)
    entry.cpu = now, found.cpu_usec
    span = (now - began) * 1e6 * found.vcpus
    return round(min(100.0, 100 * max(0, found.cpu_usec - before) / span), 2) if span > 0 else 0.0


def _page(found: list[dict[str, Any]], query: Any) -> web.Response:
    """A part of a list; the header says where the next one begins."""
    try:
        at, size = int(query.get("nextToken", "0")), int(query.get("limit", _PAGE))
    except ValueError:
        raise InvalidArgument("`limit` and `nextToken` are numbers") from None
    if at < 0 or size < 1:
        raise InvalidArgument("`limit` is at least 1")
    headers = {"X-Next-Token": str(at + size)} if at + size < len(found) else {}
    return web.json_response(found[at : at + size], headers=headers)
