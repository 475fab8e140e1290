# SPDX-License-Identifier: Apache-2.0
"""A private image that another project has: what a registry is asked for tells whether its layers came from there.

How long a pull takes can tell of what lies on the disk already; so what is fetched is counted, and no time is measured.
"""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import encode_basic_auth, web

from hypercontainer.model.registry_auth import registry_auth
from tests.registry import serving

from .served import Answer
from .test_image_verbs import ctl
from .test_tenancy import Cloud, cloud

SHOWN = encode_basic_auth("me", "open sesame")
RIGHT, WRONG = ({"X-Registry-Auth": registry_auth("me", p)} for p in ("open sesame", "guessed"))


@dataclass
class Gate:
    """In front of a registry: it lets in who has the password, and counts what is asked for."""

    address: str
    got: Counter[str] = field(default_factory=Counter)  # blobs that were given
    refused: int = 0

    def taken(self) -> Counter[str]:
        """Since it was asked last."""
        found, self.got = self.got, Counter()
        return found


@contextlib.asynccontextmanager
async def gate(registry: str) -> AsyncIterator[Gate]:
    """One that answers, and ends with the block."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != SHOWN:
            found.refused += 1
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        asked = {"Accept": ", ".join(request.headers.getall("Accept", ["*/*"]))}
        async with session.request(request.method, f"http://{registry}{request.path_qs}", headers=asked) as got:
            kept = ("Content-Type", "Docker-Content-Digest", "Docker-Distribution-Api-Version")
            body = await got.read()
            if got.status == 200 and request.method == "GET" and "/blobs/" in request.path:
                found.got[request.path.rpartition("/")[2]] += 1
            headers = {k: v for k, v in got.headers.items() if k in kept}
            return web.Response(status=got.status, body=body, headers=headers)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    async with aiohttp.ClientSession() as session:
        await runner.setup()
        try:
            listening = socket.create_server(("127.0.0.1", 0))
            await web.SockSite(runner, listening).start()
            found = Gate(f"localhost:{listening.getsockname()[1]}")
            yield found
        finally:
            await runner.cleanup()


async def pull(c: Cloud, project: str, name: str, headers: dict[str, str]) -> Answer:
    return await c.s.ask("POST", f"/v1/images/pull?name={name}", headers={"Hyper-Project": project, **headers})


async def test_layers_that_another_project_has_are_fetched_from_the_registry(template: Path, tmp_path: Path) -> None:
    async with cloud(template, own_images=True) as c:
        with serving(tmp_path) as registry:
            async with gate(registry.address) as door:
                await c.s.stage.engine.images.pull("builtin:busybox")[1]
                await ctl(c.s, "tag", "busybox", f"{registry.address}/team/app:1")
                await ctl(c.s, "push", "-q", f"{registry.address}/team/app:1")
                await ctl(c.s, "rmi", "busybox", f"{registry.address}/team/app:1")
                await looked_at(c, door)


async def looked_at(c: Cloud, door: Gate) -> None:
    name = f"{door.address}/team/app:1"
    got = await pull(c, "blue/web", name, RIGHT)
    assert b"Downloaded newer image" in got.body, got.body
    fetched = door.taken()
    assert len(fetched) == 2 and set(fetched.values()) == {1}, fetched  # its configuration, and its layer
    # Without rights: what is there is refused as what is not there, and nothing of it is given.
    for headers in ({}, WRONG):
        said = [(await pull(c, "red/web", n, headers)).body for n in (name, name.replace("app", "nil"))]
        assert b"refused the credentials" in said[0] and said[0] == said[1].replace(b"nil", b"app"), said
    assert not door.taken() and door.refused
    assert (await c.ask("GET", "/images", project="red/web")).json == []
    # With rights: all of it comes from the registry once more, though it lies here; and only then is it theirs.
    got = await pull(c, "red/web", name, RIGHT)
    assert b"Downloaded newer image" in got.body, got.body
    assert door.taken() == fetched
    await pull(c, "red/web", name, RIGHT)
    assert len(door.taken()) < len(fetched)  # of what is theirs no layer
    # Who has given it up fetches it again, as long as another keeps it.
    assert (await c.ask("DELETE", f"/images?name={name}", project="red/web")).status == 200
    await pull(c, "red/web", name, RIGHT)
    assert door.taken() == fetched
