# SPDX-License-Identifier: Apache-2.0
"""The ledgers of a cluster's nodes, over REST with mutual TLS."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import aiohttp
import msgspec

from ..errors import HyperError, PermissionDenied, Unauthorized, Unavailable
from ..model.cluster import LedgerPart
from .api_server import ApiServer
from .port import PAGE

_TIMEOUT = aiohttp.ClientTimeout(total=30)  # seconds
_LARGEST = 16 << 20  # bytes of an answer, of which PAGE entries are a tenth at most


class NodeLedgers:
    """`Ledgers` of nodes that are named, or that the cluster tells of."""

    def __init__(
        self, tls: ssl.SSLContext, named: Mapping[str, str], server: ApiServer | None = None, port: int = 0
    ) -> None:
        """`named` are addresses, HOST:PORT, by names; without any those of the server, at that port."""
        self._tls, self._named, self._server, self._port = tls, dict(named), server, port

    async def addresses(self) -> Mapping[str, str]:
        """HOST:PORT."""
        if self._named or self._server is None:
            return self._named
        found = await self._server.addresses()
        return {name: f"[{a}]:{self._port}" if ":" in a else f"{a}:{self._port}" for name, a in found.items()}

    async def read(self, address: str, after: int) -> LedgerPart:
        """A connection of its own for each: nodes are asked once a minute."""
        url = f"https://{address}/v1/usage/entries?after={after}&count={PAGE}"
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT) as session,
                session.get(url, ssl=self._tls, allow_redirects=False) as answer,
            ):
                body = await answer.content.read(_LARGEST)
                while not answer.content.at_eof() and len(body) < _LARGEST:
                    body += await answer.content.read(_LARGEST - len(body))
                if answer.status != 200:
                    raise _refused(address, answer.status, body)
                return msgspec.json.decode(body, type=LedgerPart)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(f"hyperd at {address} does not answer: {error or 'it takes too long'}") from None
        except msgspec.DecodeError as error:
            raise Unavailable(f"hyperd at {address} answers what this one does not understand: {error}") from None


def _refused(address: str, status: int, body: bytes) -> HyperError:
    try:
        said = str(msgspec.json.decode(body)["message"])
    except (msgspec.DecodeError, TypeError, KeyError, ValueError):
        said = f"HTTP {status}"
    kind = {401: Unauthorized, 403: PermissionDenied}.get(status, Unavailable)
    return kind(f"hyperd at {address} says: {said}", hint="let our certificate have the scope audit there (`clients`)")
