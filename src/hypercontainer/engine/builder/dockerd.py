# SPDX-License-Identifier: Apache-2.0
"""What hyperd asks of the builder's dockerd, by Docker's Engine API (version 1.45, of engine 26)."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.tracing import Trace

from ...errors import HyperError, InvalidArgument, Unavailable

VERSION = "v1.45"
SOCKET = "/run/docker.sock"
_CHUNK = 64 << 10  # bytes
_DOCUMENT_MAX, _ERROR_MAX = 16 << 20, 64 << 10  # bytes
ANOTHER = "`hyperctl builder stop` ends it, and the next build has another"
_KEEP = 3600.0  # seconds: longer than a builder waits for the next build, and dockerd closes none
Dial = Callable[[], socket.socket]
Body = AsyncIterator[bytes]
Query = Sequence[tuple[str, str]]  # a name may come several times


class _Connector(aiohttp.BaseConnector):
    """Connections are sockets that somebody dials."""

    def __init__(self, dial: Dial) -> None:
        super().__init__(limit=0, keepalive_timeout=_KEEP)
        self._dial = dial

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        _, protocol = await self._loop.create_connection(self._factory, sock=self._dial())
        return protocol


class Dockerd:
    """Asks; connections that have been used are kept for the next question until it is closed."""

    def __init__(self, dial: Dial) -> None:
        self._session = aiohttp.ClientSession(
            connector=_Connector(dial), timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False,
            read_bufsize=_CHUNK,
        )  # fmt: skip

    async def close(self) -> None:
        """End all connections, and so what is asked by them."""
        await self._session.close()

    async def send(
        self, method: str, path: str, query: Query = (), *, body: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:  # fmt: skip
        """The answer, whose body has not been read. :raise Unavailable: there is none."""
        try:
            return await self._session.request(
                method, f"http://builder/{VERSION}{path}", params=list(query), data=body, headers=headers
            )
        except aiohttp.ClientError as error:
            raise Unavailable(f"the builder does not answer: {error}", hint="see `hyperctl events`") from error

    async def images(self) -> dict[str, set[str]]:
        """Its images by their ids, each with its names as Docker writes them; none for what was left without."""
        found = await self.json("GET", "/images/json")
        try:
            return {str(each["Id"]): {n for n in each.get("RepoTags") or [] if "<none>" not in n} for each in found}
        except (TypeError, KeyError, AttributeError):
            raise Unavailable("the builder's list of images is none", hint=ANOTHER) from None

    async def put(self, archive: Body) -> None:
        """Load images. :raise HyperError: it does not take them."""
        async with await self.send("POST", "/images/load", [("quiet", "1")], body=archive) as response:
            await _check(response)
            text = await _whole(response, _DOCUMENT_MAX)
            for line in filter(bytes.strip, text.splitlines()):
                found = _decoded(line)
                if isinstance(found, dict) and (error := found.get("error")):
                    raise HyperError(f"the builder does not take an image: {error}")

    async def get(self, name: str) -> Body:
        """An image as an archive. :raise HyperError: it is not given, or breaks off."""
        async with await self.send("GET", "/images/get", [("names", name)]) as response:
            await _check(response)
            try:
                async for chunk in response.content.iter_any():
                    yield chunk
            except aiohttp.ClientError as error:
                raise Unavailable(f"the builder's image breaks off: {error}", hint="build it again") from error

    async def remove(self, name: str) -> None:
        """Take a name away, and with the last one the image; one that is not there is no error."""
        async with await self.send("DELETE", f"/images/{name}", [("force", "1")]) as response:
            if response.status != 404:
                await _check(response)

    async def json(self, method: str, path: str, query: Query = ()) -> Any:
        """A document. :raise HyperError: it says why there is none."""
        async with await self.send(method, path, query) as response:
            await _check(response)
            text = await _whole(response, _DOCUMENT_MAX)
            return _decoded(text) if text else None


async def _whole(response: aiohttp.ClientResponse, most: int) -> bytes:
    """A body of so many bytes at most: what runs in a build may have taken the builder over.

    :raise Unavailable: it is longer, or breaks off.
    """
    found = bytearray()
    try:
        async for piece in response.content.iter_any():
            found += piece
            if len(found) > most:
                raise Unavailable(f"the builder's answer has more than {most} bytes", hint=ANOTHER)
    except aiohttp.ClientError as error:
        raise Unavailable(f"the builder's answer breaks off: {error}", hint=ANOTHER) from error
    return bytes(found)


def _decoded(text: bytes) -> Any:
    """:raise Unavailable: it is no document."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Unavailable("the builder's answer is no document", hint=ANOTHER) from None


async def _check(response: aiohttp.ClientResponse) -> None:
    """:raise HyperError: it says that something is wrong."""
    if response.status >= 400:
        text = (await _whole(response, _ERROR_MAX)).decode(errors="replace")
        try:
            text = str(json.loads(text)["message"])
        except (ValueError, KeyError, TypeError, RecursionError):
            text = text.strip() or f"status {response.status}"
        raise (InvalidArgument if response.status < 500 else HyperError)(f"the builder says: {text}")
