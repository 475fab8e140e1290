# SPDX-License-Identifier: Apache-2.0
"""The REST API as methods; answers are the model's types."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from .. import API_VERSION, errors
from .transport import Connection, Response

T = TypeVar("T")
Query = Mapping[str, str | int | bool | None]


def default_socket() -> str:
    """HYPER_HOST, root's socket, or the user's."""
    if host := os.environ.get("HYPER_HOST"):
        return host.removeprefix("unix://")
    if os.geteuid() == 0:
        return "/run/hyper/hyper.sock"
    base = os.environ.get("XDG_RUNTIME_DIR")
    return f"{base}/hyper/hyper.sock" if base else f"/tmp/hyper-{os.getuid()}/hyper.sock"


def raise_error(body: bytes, status: int) -> None:
    """The error that an answer of 4xx or 5xx stands for."""
    try:
        known = msgspec.json.decode(body)
        raise_known(known)
    except msgspec.DecodeError:
        raise errors.Unavailable(f"hyperd answered with status {status}: {body[:200].decode(errors='replace')}") from None


def raise_known(known: dict[str, Any]) -> None:
    kind = errors.by_code(known.get("code", ""))
    message, hint = known.get("message", "unknown error"), known.get("hint") or None
    if kind is errors.StartFailed:
        raise errors.StartFailed(message, exit_status=known.get("exitStatus") or 126, hint=hint)
    if kind is errors.GuestError:
        raise errors.GuestError(message)
    raise kind(message, hint=hint)


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
        given = {k: (str(int(v)) if isinstance(v, bool) else str(v)) for k, v in (query or {}).items() if v not in (None, "", False)}
        target = f"/{API_VERSION}{route}" + (f"?{urlencode(given)}" if given else "")
        response = self._connect(self.path).request(method, target, headers or {}, body)
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

    def lines(self, method: str, route: str, query: Query | None = None, headers: dict[str, str] | None = None) -> Iterator[Any]:
        """An answer of one JSON document per line."""
        for line in self.open(method, route, query, headers=headers).lines():
            if line:
                yield msgspec.json.decode(line)

    def upgrade(self, route: str, query: Query) -> Connection:
        """A connection that carries frames; see `api.upgrade`."""
        response = self.open("POST", route, query, headers={"Connection": "Upgrade", "Upgrade": "tcp"})
        if response.status != 101:
            raise errors.Unavailable(f"hyperd did not upgrade the connection (status {response.status})")
        return response.connection


def container_route(key: str, suffix: str = "") -> str:
    return f"/containers/{quote(key.removeprefix('/'), safe='')}{suffix}"


def pod_route(key: str, suffix: str = "") -> str:
    return f"/pods/{quote(key, safe='')}{suffix}"
