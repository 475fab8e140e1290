# SPDX-License-Identifier: Apache-2.0
"""Volumes that clients make, and that new sandboxes mount: named volumes of hyperd with a label."""

from __future__ import annotations

import contextlib
import posixpath
import re
from typing import Any

from aiohttp import web

from ...errors import Conflict, InvalidArgument, NotFound, Unsupported
from ...model.pods import VolumeSpec
from ...model.specs import Mount
from ...model.status import Volume, VolumeInfo
from ...sdk.api import Api
from .bodies import read_body
from .terms import access_token

LABEL = "io.hypercontainer.e2b.volume"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_NOWHERE = "volumes.invalid"  # RFC 2606: where a client asks for files of a volume that was told of no server


class Volumes:
    """Their routes; an id is a name."""

    def __init__(self, token: str, api: Api) -> None:
        self._token = token
        self._api = api

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        one = "/volumes/{id}"
        return [
            web.post("/volumes", self.create), web.get("/volumes", self.all), web.get(one, self.get),
            web.delete(one, self.remove), web.route("*", "/volumecontent/{rest:.*}", self.contents),
        ]  # fmt: skip

    def _view(self, volume: Volume) -> dict[str, Any]:
        name = volume.name
        token = access_token(self._token, f"volume {name}")
        return {"volumeID": name, "name": name, "token": token, "domain": _NOWHERE}

    async def create(self, request: web.Request) -> web.Response:
        """An empty one. :raise Conflict: there is one of that name, whoever made it."""
        name = _name((await read_body(request)).get("name"))
        with contextlib.suppress(NotFound):
            await self._api.call(VolumeInfo, "GET", f"/volumes/{name}")
            raise Conflict(f"there is a volume {name!r} already", hint="choose another name, or connect to it")
        spec = VolumeSpec(name=name, labels={LABEL: ""})
        return web.json_response(self._view(await self._api.call(Volume, "POST", "/volumes", None, spec)), status=201)

    async def all(self, request: web.Request) -> web.Response:
        """Those that clients made."""
        found = await self._api.call(list[VolumeInfo], "GET", "/volumes")
        views = [self._view(v.volume) for v in found if LABEL in v.volume.labels]
        return web.json_response(views)

    async def get(self, request: web.Request) -> web.Response:
        """One of them."""
        return web.json_response(self._view(await self.find(request.match_info["id"])))

    async def remove(self, request: web.Request) -> web.Response:
        """With all that is in it. :raise Conflict: a sandbox has it."""
        volume = await self.find(request.match_info["id"])
        await self._api.do("DELETE", f"/volumes/{volume.name}")
        return web.Response(status=204)

    async def contents(self, request: web.Request) -> web.Response:
        """:raise Unsupported: files are looked at in a sandbox."""
        raise Unsupported("the files of a volume are there in a sandbox that mounts it", hint="give `volume_mounts`")

    async def find(self, name: str) -> Volume:
        """:raise NotFound: no client made such a one."""
        found = (await self._api.call(VolumeInfo, "GET", f"/volumes/{_name(name)}")).volume
        if LABEL not in found.labels:
            raise NotFound(f"no such volume: {name}")
        return found

    async def mounts(self, asked: Any) -> list[Mount]:
        """The `volumeMounts` of a new sandbox. :raise NotFound: there is no such volume."""
        found = []
        if not isinstance(asked or [], list):
            raise InvalidArgument("`volumeMounts` is a list")
        for each in asked or []:
            path = each.get("path") if isinstance(each, dict) else None
            if not isinstance(path, str) or not posixpath.isabs(path):
                raise InvalidArgument("`volumeMounts` is a list of volumes' names, each with an absolute path")
            volume = await self.find(_name(each.get("name")))
            found.append(Mount(type="volume", source=volume.name, target=posixpath.normpath(path)))
        return found


def _name(given: Any) -> str:
    if not isinstance(given, str) or not _NAME.fullmatch(given):
        raise InvalidArgument("a volume's name has letters, digits, `_`, `.` and `-`")
    return given
