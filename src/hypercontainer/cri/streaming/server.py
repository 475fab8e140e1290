# SPDX-License-Identifier: Apache-2.0
"""HTTP on loopback. A kubelet gets a URL by CRI, and hands the connection of its client, or API server, through to it.

Who knows a URL's token may use it, once: so it is never given out but by CRI's socket, and there is no TLS.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator, Sequence

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from ...engine.attach.peer import End, Peer
from ...engine.attach.session import AttachOptions, AttachSession
from ...engine.engine import Engine
from ...engine.principal import asked_by
from ...errors import HyperError, InvalidArgument
from ...model.specs import ExecSpec
from ...serving.hijack import Hijacked
from ...serving.listener import Listener, ListenLimits, server_options
from ...serving.statuses import status_of
from .. import records
from ..call import CALLER
from ..faults import message_of
from . import channels, port_channels, spdy_command, spdy_forward
from .channels import ChannelPeer
from .port_channels import PortChannels
from .spdy import Connection
from .spdy_command import SpdyPeer
from .spdy_forward import SpdyForward
from .status import failure
from .tickets import CommandTicket, PortTicket, Ticket, Tickets, kind_of
from .wires import MESSAGE_MAX, Activity, HijackedWire, WebsocketWire, watched

log = logging.getLogger(__name__)
_SPDY = "spdy/3.1"
_TUNNEL = f"SPDY/3.1+{spdy_forward.PROTOCOL}"
_PROTOCOL = "X-Stream-Protocol-Version"
_CONNECTIONS_MAX = 1000  # at a time
_CLOSE = 5.0  # seconds for the other side's half of a websocket's end


class StreamingServer:
    """Answers until the end of its block."""

    def __init__(self, engine: Engine, sock: socket.socket) -> None:
        """`sock` is bound, and it is ours."""
        self._engine = engine
        self._tickets = Tickets()
        self._sock = sock
        self._runner: web.AppRunner | None = None
        self._listener: Listener | None = None
        host, port = sock.getsockname()[:2]
        self.address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def __aenter__(self) -> StreamingServer:
        application = web.Application(middlewares=[_told])
        application.router.add_route("*", "/{kind}/{token}", self._answer)
        limits = ListenLimits(connections=_CONNECTIONS_MAX, per_peer=_CONNECTIONS_MAX)
        self._runner = web.AppRunner(
            application, handler_cancellation=True, access_log=None, shutdown_timeout=1, **server_options(limits)
        )
        await self._runner.setup()
        assert self._runner.server is not None
        self._listener = Listener(self._sock, self._runner.server, limits)
        self._listener.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Sessions end with it."""
        if self._listener and self._runner:
            await self._listener.close()
            await self._runner.cleanup()
        self._sock.close()

    def url(self, ticket: Ticket) -> str:
        """For one connection. :raise Unavailable: very many were given out and not used."""
        return f"{self.address}/{kind_of(ticket)}/{self._tickets.issue(ticket)}"

    # -- connections ------------------------------------------------------------------

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        upgrade = request.headers.get(hdrs.UPGRADE, "").lower()
        if upgrade not in (_SPDY, "websocket") or "upgrade" not in request.headers.get(hdrs.CONNECTION, "").lower():
            raise InvalidArgument("this address takes a websocket, or an upgrade to SPDY/3.1")
        ticket = self._tickets.redeem(request.match_info["kind"], request.match_info["token"])
        serve = self._websocket if upgrade == "websocket" else self._spdy
        with asked_by(CALLER):
            async with watched(request) as activity:
                return await serve(request, ticket, activity)

    async def _spdy(self, request: web.Request, ticket: Ticket, activity: Activity) -> web.StreamResponse:
        known = (spdy_forward.PROTOCOL,) if isinstance(ticket, PortTicket) else spdy_command.PROTOCOLS
        protocol = _chosen(known, request.headers.getall(_PROTOCOL, []))
        response = Hijacked(request, "application/octet-stream", _SPDY)
        response.headers[_PROTOCOL] = protocol
        await response.open()
        wire = HijackedWire(response, activity)
        connection = Connection(wire)
        with _ended():
            if isinstance(ticket, PortTicket):
                await SpdyForward(connection, self._engine.forwards, ticket.pod).run()
            else:
                peer = SpdyPeer(connection, ticket, protocol)
                await peer.gather()
                await self._run(ticket, peer)
        await wire.end()
        return response

    async def _websocket(self, request: web.Request, ticket: Ticket, activity: Activity) -> web.StreamResponse:
        known = (_TUNNEL, *port_channels.PROTOCOLS) if isinstance(ticket, PortTicket) else channels.PROTOCOLS
        protocol = _chosen(known, request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, []))
        named = [*request.query.getall("ports", []), *request.query.getall("port", [])]
        ports: tuple[int, ...] = ()
        if isinstance(ticket, PortTicket) and protocol != _TUNNEL:
            ports = port_channels.ports_of(ticket.ports, named)
        response = web.WebSocketResponse(
            protocols=(protocol,), max_msg_size=MESSAGE_MAX, compress=False, timeout=_CLOSE
        )
        if not response.can_prepare(request):
            raise InvalidArgument("this is no websocket of version 13")
        await response.prepare(request)
        wire = WebsocketWire(response, activity)
        with _ended():
            if isinstance(ticket, CommandTicket):
                await self._run(ticket, ChannelPeer(wire, ticket, protocol))
            elif ports:
                await PortChannels(wire, self._engine.forwards, ticket.pod, ports).run()
            else:
                await SpdyForward(Connection(wire), self._engine.forwards, ticket.pod).run()
        await wire.end()
        return response

    async def _run(self, ticket: CommandTicket, peer: Peer) -> None:
        """A session to its end; why there is none the client is told."""
        try:
            session = self._session(ticket)
        except HyperError as error:
            await peer.finish(End(error=error))
        else:
            await session.run(peer)

    def _session(self, ticket: CommandTicket) -> AttachSession:
        container, record = records.container(self._engine, ticket.container)
        outputs = frozenset({1} if ticket.stdout else ()) | frozenset({2} if ticket.stderr else ())
        if not ticket.command:
            options = AttachOptions(outputs=outputs, detach_keys=b"", keeps_stdin=not record.stdin_once)
            return self._engine.attachments.container(container.id, options)
        spec = ExecSpec(command=list(ticket.command), tty=ticket.tty, stdin=ticket.stdin)
        options = AttachOptions(outputs=outputs, detach_keys=b"")
        return self._engine.attachments.exec(self._engine.execs.create(container.id, spec), options)


def _chosen(known: Sequence[str], offered: Sequence[str]) -> str:
    """The best that a client knows, or the last where it names none.

    :raise InvalidArgument: it knows others.
    """
    theirs = {name.strip() for line in offered for name in line.split(",")}
    for name in known:
        if name in theirs:
            return name
    if theirs:
        raise InvalidArgument(f"none of the protocols that are offered is known: {', '.join(sorted(theirs))}",
                              hint=f"offer {known[0]}")  # fmt: skip
    return known[-1]


@contextlib.contextmanager
def _ended() -> Iterator[None]:
    """However a client's connection ends, that is no error of ours."""
    try:
        yield
    except HyperError as error:
        log.info("a client of the streaming server was left: %s", error)
    except (ConnectionError, TimeoutError) as error:
        log.debug("a client of the streaming server has gone: %s", error)


@web.middleware
async def _told(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What is wrong before a connection is taken from HTTP."""
    try:
        return await handler(request)
    except HyperError as error:
        code = status_of(error)
        return web.json_response(failure(message_of(error), code), status=code)
