# SPDX-License-Identifier: Apache-2.0
"""A client of CRI, made of the same description: `await client.Version(version="0.1.0")`."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from hypercontainer.cri import api
from hypercontainer.cri.sandbox_request import CriSettings
from hypercontainer.cri.server import Server
from hypercontainer.cri.streaming.server import StreamingServer

from .stage import Stage, stage

LIMIT = 20.0  # seconds for an answer


class Client:
    """Each method by its name, with the request's fields or a request."""

    def __init__(self, channel: grpc.aio.Channel, package: str = "runtime.v1") -> None:
        self._methods: dict[str, tuple[Any, Any]] = {}
        for service in api.SERVICES:
            for m in api.FILE.services_by_name[service].methods:
                kind = channel.unary_stream if m.server_streaming else channel.unary_unary
                multi = kind(
                    f"/{package}.{service}/{m.name}",
                    request_serializer=lambda message: message.SerializeToString(),
                    response_deserializer=api.message_class(m.output_type).FromString,
                )
                self._methods[m.name] = (multi, api.message_class(m.input_type))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        multi, kind = self._methods[name]

        def ask(request: Any = None, *, within: float = LIMIT, **fields: Any) -> Any:
            return multi(request or kind(**fields), timeout=within)

        return ask


def channel(path: Path) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"unix:{path}", options=[("grpc.max_receive_message_length", 16 << 20)])


async def refused(call: Any) -> tuple[str, str]:
    """The code and the sentence with which it is."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    raise AssertionError(f"it was answered: {answer}")


@contextlib.asynccontextmanager
async def served(
    template: Path,
    *,
    prepare: Callable[[Stage], None] = lambda _: None,
    cri: CriSettings | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[Stage, Client]]:
    """CRI on a real socket, with an engine over fakes behind it; nothing is left at the end."""
    with stage(template, **settings) as s:
        prepare(s)
        engine = s.prepare().engine
        await engine.open()
        path = s.paths.run / "cri.sock"
        try:
            async with StreamingServer(engine, socket.create_server(("127.0.0.1", 0))) as streaming:
                server = Server(engine, streaming, cri or CriSettings(kubelet=str(s.paths.root)))
                await server.open(path)
                try:
                    async with channel(path) as opened:
                        yield s, Client(opened)
                finally:
                    await server.close()
        finally:
            for pod in [p for p in engine.registry.pods() if not p.implicit]:
                await engine.pods.remove(pod.id, force=True)
            await engine.close(keep_running=False)
