# SPDX-License-Identifier: Apache-2.0
"""The gRPC server: each method under both names of the protocol, `runtime.v1` and `runtime.v1alpha2`."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from ..engine.engine import Engine
from ..engine.principal import asked_by
from ..errors import HyperError, InvalidArgument, Unavailable
from ..model.audit import AuditEntry
from ..model.moments import write_moment
from ..sys import clock
from . import api, containers, events, faults, images, metrics, processes, runtime, sandboxes, stats
from .call import CALLER, Call, Method, Stream
from .sandbox_request import CriSettings
from .streaming.server import StreamingServer

log = logging.getLogger(__name__)
PACKAGES = {"runtime.v1": "v1", "runtime.v1alpha2": "v1alpha2"}
_GRACE = 1.0  # seconds that requests have when the daemon ends
_REQUESTS_MAX = 1000  # at a time; more are refused with RESOURCE_EXHAUSTED
_RECEIVED_MAX = 16 << 20  # bytes of a message, as kubelets have it

METHODS: dict[str, Method] = {
    **runtime.METHODS,
    **sandboxes.METHODS,
    **containers.METHODS,
    **processes.METHODS,
    **stats.METHODS,
    **metrics.METHODS,
}
STREAMS: dict[str, Stream] = {**events.STREAMS}
IMAGES: dict[str, Method] = {**images.METHODS}


class Server:
    """CRI on a unix socket; streams are promised by it, and served elsewhere."""

    def __init__(self, engine: Engine, streaming: StreamingServer, settings: CriSettings | None = None) -> None:
        self._engine = engine
        self._streaming = streaming
        self._settings = settings or CriSettings()
        options = [("grpc.max_receive_message_length", _RECEIVED_MAX), ("grpc.so_reuseport", 0)]
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=_REQUESTS_MAX)
        tables: dict[str, Mapping[str, Any]] = {"RuntimeService": {**METHODS, **STREAMS}, "ImageService": IMAGES}
        for package, version in PACKAGES.items():
            for name, table in tables.items():
                handlers = {
                    m.name: self._handler(f"/{package}.{name}/{m.name}", m, table[m.name], version)
                    for m in api.FILE.services_by_name[name].methods
                    if m.name in table
                }
                service = grpc.method_handlers_generic_handler(f"{package}.{name}", handlers)
                self._server.add_generic_rpc_handlers((service,))

    async def open(self, path: Path) -> None:
        """Bind, with the mode that the process's mask gives, and answer.

        :raise Unavailable: it cannot be bound.
        """
        try:
            self._server.add_insecure_port(f"unix:{path}")
        except RuntimeError as error:
            raise Unavailable(f"cannot listen on {path}: {error}") from error
        await self._server.start()

    async def close(self) -> None:
        """Requests that are under way have a moment to end."""
        await self._server.stop(_GRACE)

    def _handler(self, path: str, method: Any, implementation: Any, version: str) -> Any:
        """For gRPC: decoded, answered, encoded."""

        def call(message: bytes) -> Call:
            """Decoded here: of what it cannot decode gRPC would tell the client nothing."""
            try:
                request = api.message_class(method.input_type).FromString(message)
            except DecodeError as error:
                raise InvalidArgument(f"the request is no {method.input_type.name}: {error}") from error
            return Call(self._engine, request, self._settings, version, self._streaming)

        coding = {"response_serializer": lambda message: message.SerializeToString()}
        if not method.server_streaming:
            return grpc.unary_unary_rpc_method_handler(self._unary(path, call, implementation), **coding)
        return grpc.unary_stream_rpc_method_handler(self._stream(path, call, implementation), **coding)

    def _unary(self, path: str, call: Callable[[Any], Call], method: Method) -> Callable[..., Awaitable[Any]]:
        async def answer(request: Any, context: Any) -> Any:
            asked = _Asked(self._engine, path)
            try:
                with asked_by(CALLER):
                    answered = await method(call(request))
                asked.answered = True
                return answered
            except Exception as error:
                await asked.refuse(context, error)
            finally:
                asked.written()

        return answer

    def _stream(self, path: str, call: Callable[[Any], Call], method: Stream) -> Callable[..., Any]:
        async def answers(request: Any, context: Any) -> AsyncGenerator[Any, None]:
            asked = _Asked(self._engine, path)
            try:
                with asked_by(CALLER):
                    await context.send_initial_metadata(())  # it stands
                    async for message in method(call(request)):
                        yield message
                asked.answered = True
            except Exception as error:
                await asked.refuse(context, error)
            finally:
                asked.written()

        return answers


class _Asked:
    """A request, for the audit log."""

    def __init__(self, engine: Engine, path: str) -> None:
        self._audit, self._path, self._begun = engine.audit, path, clock.seconds()
        self.answered, self._error = False, ""

    async def refuse(self, context: Any, error: Exception) -> None:
        """Tell the client what is wrong."""
        self.answered, self._error = True, error.code if isinstance(error, HyperError) else "internal"
        await context.abort(faults.code_of(error), faults.message_of(error))

    def written(self) -> None:
        """By HTTP every answer of gRPC's is a 200; what is wrong is behind it."""
        if self._audit is not None:
            self._audit.write(
                AuditEntry(
                    time=write_moment(clock.now_ns()), request=secrets.token_hex(8), phase="end", principal=CALLER.name,
                    peer="", method="POST", path=self._path, status=200 if self.answered else 0, code=self._error,
                    milliseconds=round((clock.seconds() - self._begun) * 1000, 3),
                )
            )  # fmt: skip
