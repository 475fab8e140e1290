# SPDX-License-Identifier: Apache-2.0
"""The REST API on real sockets, with an engine over fakes behind it, on the clock of this host."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from hypercontainer.api import app
from hypercontainer.docker import app as docker_app
from hypercontainer.engine.principal import asked_by
from hypercontainer.model.principal import DAEMON, Scope
from hypercontainer.model.tokens import TokenRequest
from hypercontainer.serving.identity import Identity
from hypercontainer.serving.listener import Listener, ListenLimits, server_options

from .stage import Stage, stage


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    """A daemon's API: on a unix socket, and on a port of the loopback."""

    stage: Stage
    path: Path
    port: int
    app: web.Application
    unix: Listener
    tcp: Listener
    docker: Path  # the socket of Docker's Engine API
    tls: ssl.SSLContext | None = None  # a client's

    def token(self, *scopes: Scope, life: float = 3600.0) -> str:
        """A new one, by the daemon itself."""
        with asked_by(DAEMON):
            name = f"t{len(self.stage.engine.tokens.all())}"
            return self.stage.engine.tokens.create(TokenRequest(name=name, scopes=list(scopes), life=life)).secret

    async def open(
        self, *, tcp: bool = False, docker: bool = False
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not tcp:
            return await asyncio.open_unix_connection(str(self.docker if docker else self.path))
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls, server_hostname=self._name())

    def _name(self) -> str | None:
        return "localhost" if self.tls else None

    async def ask(
        self, method: str, target: str, body: Any = None, *, token: str = "", tcp: bool = False, docker: bool = False,
        headers: dict[str, str] | None = None,
    ) -> Answer:  # fmt: skip
        """One request on a connection of its own."""
        data = body or b""
        if not isinstance(data, bytes):
            data = json.dumps(data).encode()
        fields = {"Host": "x", "Connection": "close", "Content-Length": str(len(data)), **(headers or {})}
        if token:
            fields["Authorization"] = f"Bearer {token}"
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items()) + "\r\n"
        reader, writer = await self.open(tcp=tcp, docker=docker)
        try:
            writer.write(head.encode() + data)
            async with asyncio.timeout(20):
                return await read_answer(reader, head=method == "HEAD")
        finally:
            writer.close()

    @contextlib.asynccontextmanager
    async def listening(self, token: str) -> AsyncIterator[None]:
        """To events, with a token; after the block the connection has to end."""
        reader, writer = await self.open(tcp=True)
        try:
            writer.write(f"GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            yield
            async with asyncio.timeout(20):
                with contextlib.suppress(ConnectionError):
                    while await reader.read(1000):
                        pass
        finally:
            writer.close()


async def read_answer(reader: asyncio.StreamReader, *, head: bool = False) -> Answer:
    """The head, and all that comes until the end or the stated length; of HEAD's answer, nothing does."""
    top = await reader.readuntil(b"\r\n\r\n")
    first, *lines = top.decode().split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (x.partition(":") for x in lines if x)}
    if head:
        body = b""
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    else:
        body = await reader.read()
    return Answer(int(first.split()[1]), headers, body)


@contextlib.asynccontextmanager
async def served(
    template: Path, *, limits: ListenLimits | None = None, tls: ssl.SSLContext | None = None,
    client: ssl.SSLContext | None = None, certificates: dict[str, list[Scope]] | None = None,
    first: Callable[[Stage], None] | None = None, **settings: Any,
) -> AsyncIterator[Served]:  # fmt: skip
    """Everything that it made is ended at the end; `first` changes the stage before there is a daemon."""
    limits = limits or ListenLimits()
    with stage(template, **settings) as s:
        if first:
            first(s)
        engine = s.prepare().engine
        await engine.open()
        identity = Identity(engine.tokens, certificates or {}, engine.tenancy.entry)
        application = app.build(engine, identity)
        async with (
            _running(application, limits) as own,
            _running(docker_app.build(engine, identity), limits) as dockers,
        ):
            paths = s.paths.run / "hyper.sock", s.paths.run / "docker.sock"
            with _bound(paths[0]) as unix, _bound(paths[1]) as docker, socket.create_server(("127.0.0.1", 0)) as tcp:
                listeners = [Listener(unix, own, limits), Listener(tcp, own, limits, tls)]
                every = [*listeners, Listener(docker, dockers, limits)]
                for listener in every:
                    listener.start()
                try:
                    yield Served(s, paths[0], tcp.getsockname()[1], application, *listeners, paths[1], client)
                finally:
                    for listener in every:
                        await listener.close()
        await engine.close(keep_running=False)


def _bound(path: Path) -> socket.socket:
    found = socket.socket(socket.AF_UNIX)
    found.bind(str(path))
    return found


@contextlib.asynccontextmanager
async def _running(application: web.Application, limits: ListenLimits) -> AsyncIterator[web.Server[web.Request]]:
    runner = web.AppRunner(
        application, handler_cancellation=True, access_log=None, shutdown_timeout=1, **server_options(limits)
    )
    await runner.setup()
    assert runner.server is not None
    try:
        yield runner.server
    finally:
        await runner.cleanup()
