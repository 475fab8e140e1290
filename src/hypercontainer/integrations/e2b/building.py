# SPDX-License-Identifier: Apache-2.0
"""Templates that clients build: routes of E2B's REST API."""

from __future__ import annotations

import hmac
import time
from typing import Any

import msgspec
from aiohttp import web

from ...errors import InvalidArgument, NotFound, Unauthorized
from .bodies import read_body
from .builds import Build, Builds, Recipe
from .files import FILE_MAX
from .steps import check_hash
from .templates import DEFAULT_TAG, Templates, read_tags, split_name
from .terms import access_token

_ENTRIES = 100  # of a log, at once
_UPLOAD = 3600  # seconds for which an address to send files to is good
_PIECE = 1 << 20
_CPUS_MAX, _MEMORY_MAX = 1024, 16 << 20  # hyperd says what this host has; MiB
FILES = "/templates/{id}/files/{hash}"


class Building:
    """Their routes; a template's id is its name."""

    def __init__(self, builds: Builds, templates: Templates, token: str) -> None:
        self._builds = builds
        self._templates = templates
        self._token = token

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        one = "/templates/{id}"
        return [
            web.post("/v3/templates", self.request), web.get(FILES, self.link), web.put(FILES, self.upload),
            web.post(f"/v2{one}/builds/{{build}}", self.begin), web.get(f"{one}/builds/{{build}}/status", self.status),
            web.get("/templates/aliases/{id}", self.alias), web.post("/templates/tags", self.tag),
            web.delete("/templates/tags", self.untag), web.get(f"{one}/tags", self.tags),
        ]  # fmt: skip

    async def request(self, request: web.Request) -> web.Response:
        """A new build, which waits for its files."""
        body = await read_body(request)
        name, tag = split_name(body.get("name") or body.get("alias"))
        tags = read_tags([*([tag] if tag else []), *read_tags(body.get("tags") or [])]) or [DEFAULT_TAG]
        cpus, memory = _number(body, "cpuCount", _CPUS_MAX), _number(body, "memoryMB", _MEMORY_MAX)
        _number(body, "minFreeDiskMB", 1 << 40)
        build = self._builds.request(name, tags, cpus=cpus, memory=memory)
        view = {
            "templateID": name, "buildID": build.id, "public": False, "names": [name], "aliases": [name], "tags": tags
        }  # fmt: skip
        return web.json_response(view, status=202)

    def _build(self, request: web.Request) -> Build:
        return self._builds.find(request.match_info["id"], request.match_info["build"])

    async def link(self, request: web.Request) -> web.Response:
        """Where files of a build are sent to, if they are not here."""
        name, hash_ = request.match_info["id"], check_hash(request.match_info["hash"])
        self._builds.expect(name)
        until = int(time.time()) + _UPLOAD
        scheme = "https" if request.headers.get("X-Forwarded-Proto") == "https" else request.scheme
        url = request.url.with_scheme(scheme).with_query(until=until, signature=self._signature(name, hash_, until))
        return web.json_response({"present": hash_ in self._builds.uploads.of(name), "url": str(url)}, status=201)

    def _signature(self, name: str, hash_: str, until: int) -> str:
        return access_token(self._token, f"upload {name} {hash_} {until}")

    async def upload(self, request: web.Request) -> web.Response:
        """Files; the address has the signature. :raise Unauthorized: it is not right, or too old."""
        name, hash_ = request.match_info["id"], check_hash(request.match_info["hash"])
        text = request.query.get("until", "")
        until = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0
        right = self._signature(name, hash_, until).encode()
        if until < time.time() or not hmac.compare_digest(right, request.query.get("signature", "").encode()):
            raise Unauthorized("the address is not signed, or its time is over")
        self._builds.expect(name)
        await self._builds.uploads.take(name, hash_, request.content.iter_chunked(_PIECE), FILE_MAX)
        return web.Response()

    async def begin(self, request: web.Request) -> web.Response:
        """All files were sent: go to work."""
        build, body = self._build(request), await read_body(request)
        try:
            recipe = msgspec.convert(body, Recipe)
        except msgspec.ValidationError as error:
            raise InvalidArgument(f"the build is not understood: {error}") from None
        await self._builds.begin(build, recipe)
        return web.Response(status=202)

    async def status(self, request: web.Request) -> web.Response:
        """How far it is, and its log from an offset on."""
        build, offset = self._build(request), request.query.get("logsOffset", "0")
        if not (offset.isascii() and offset.isdigit() and len(offset) < 12):
            raise InvalidArgument("`logsOffset` is a number")
        view: dict[str, Any] = {
            "templateID": build.name, "buildID": build.id, "status": build.status, "logs": [],
            "logEntries": build.log[int(offset) : int(offset) + _ENTRIES],
        }  # fmt: skip
        if build.reason:
            view["reason"] = {"message": build.reason, "step": build.step}
        return web.json_response(view)

    async def alias(self, request: web.Request) -> web.Response:
        """Whether there is one of a name. :raise NotFound: there is none."""
        name, tag = split_name(request.match_info["id"])
        if tag not in ("", *await self._templates.tagged(name)):
            raise NotFound(f"template {name!r} has no tag {tag!r}")
        return web.json_response({"templateID": name, "public": False})

    async def tag(self, request: web.Request) -> web.Response:
        """Further tags for one. :raise NotFound: there is none."""
        body = await read_body(request)
        name, tags = split_name(body.get("target"))[0], read_tags(body.get("tags"))
        found = await self._templates.find(body["target"])
        if found is None:
            raise NotFound(f"there is no template {body['target']!r}")
        await self._templates.put(found.id, name, tags)
        return web.json_response({"tags": tags, "buildID": found.template.build}, status=201)

    async def untag(self, request: web.Request) -> web.Response:
        """With its last tag a template goes."""
        body = await read_body(request)
        await self._templates.untag(split_name(body.get("name"))[0], read_tags(body.get("tags")))
        return web.Response(status=204)

    async def tags(self, request: web.Request) -> web.Response:
        """Of one. :raise NotFound: there is none."""
        known = await self._templates.tagged(request.match_info["id"])
        return web.json_response([
            {"tag": tag, "buildID": found.template.build, "createdAt": found.created}
            for tag, found in sorted(known.items())
        ])  # fmt: skip


def _number(body: dict[str, Any], name: str, largest: int) -> int:
    """0 where it is not given. :raise InvalidArgument: it is no such number."""
    found = body.get(name) or 0
    if type(found) is not int or not 0 <= found <= largest:
        raise InvalidArgument(f"`{name}` is a number up to {largest}")
    return found
