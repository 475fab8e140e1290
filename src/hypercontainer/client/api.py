# SPDX-License-Identifier: Apache-2.0
"""The REST API as methods; answers are the model's types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from .. import errors
from .base import container_route as container_route
from .base import parameters, raise_error, target
from .base import pod_route as pod_route
from .transport import Connection, Response

T = TypeVar("T")
Query = Mapping[str, str | int | bool | None]


class Client:
    """Connects anew for each call; `connect` may start a daemon first."""

    def __init__(self, path: str, connect: Callable[[str], Connection] = Connection) -> None:
        self.path = path
        self._connect = connect

    def open(
        self, method: str, route: str, query: Query | None = None, *, body: bytes | Iterable[bytes] = b"",
        headers: dict[str, str] | None = None,
    ) -> Response:  # fmt: skip
        """Send a request; errors are raised, the body is the caller's to read."""
        response = self._connect(self.path).request(method, target(route, parameters(query)), headers or {}, body)
        if response.status >= 400:
            raise_error(response.read(), response.status)
        return response

    def call(self, type_: type[T], method: str, route: str, query: Query | None = None, body: Any = None) -> T:
        """A JSON answer as `type_`."""
        raw = b"" if body is None else msgspec.json.encode(body)
        return msgspec.json.decode(self.open(method, route, query, body=raw).read(), type=type_)

    def do(self, method: str, route: str, query: Query | None = None, body: Any = None) -> None:
        """A call whose answer does not matter."""
        self.open(method, route, query, body=b"" if body is None else msgspec.json.encode(body)).read()

    def lines(
        self, method: str, route: str, query: Query | None = None, headers: dict[str, str] | None = None,
        body: bytes | Iterable[bytes] = b"",
    ) -> Iterator[Any]:  # fmt: skip
        """An answer of one JSON document per line."""
        for line in self.open(method, route, query, headers=headers, body=body).lines():
            if line:
                yield msgspec.json.decode(line)

    def upgrade(self, route: str, query: Query, body: Any = None) -> Connection:
        """A connection that carries frames; see `api.upgrade`."""
        raw = b"" if body is None else msgspec.json.encode(body)
        response = self.open("POST", route, query, body=raw, headers={"Connection": "Upgrade", "Upgrade": "tcp"})
        if response.status != 101:
            raise errors.Unavailable(f"hyperd did not upgrade the connection (status {response.status})")
        return response.connection
