# SPDX-License-Identifier: Apache-2.0
"""What tells that somebody wants a suspended pod: a tap in the place of its NIC, or sockets in that of its ports.

In a network of this host the tap has the pod's address: a packet for it, or a neighbour that asks who has it, rings.
Who asks by ARP is answered; whoever sent a packet sends it again, as what is lost, and then the pod answers. With the
user-mode network its TCP ports are listened on; the connection that rings is held, and passed on when the pod runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_interface

from ...errors import HyperError
from ...hypervisor.driver import TapNetwork
from ...model.specs import PortMapping
from ...model.status import Pod
from ...network.backend import Link, NicKind
from ...network.proxy import copy_stream
from ...network.tap import HEADER
from ...sys import tasks
from ..pod_network import PodNetwork

log = logging.getLogger(__name__)
Ring = Callable[[], None]
_FRAME = 1 << 16  # bytes
_MULTICAST = 1  # of a MAC address's first byte
_ARP, _IPV6 = b"\x08\x06", b"\x86\xdd"
_REPLY, _REQUEST, _ICMPV6, _SOLICITATION = b"\x00\x02", b"\x00\x01", 58, 135
_AT_ONCE = 64  # frames: whoever floods a tap may not keep others of this daemon waiting
_HELD_MAX = 256  # connections of all pods that are held or passed on at a time: each is two descriptors
_AGAIN, _PATIENCE = 0.1, 60.0  # seconds between attempts to reach a pod's port, and for all of them


def is_for(frame: bytes, link: Link) -> bool:
    """Whether an Ethernet frame is for a NIC: it is sent to it, or asks for one of its addresses.

    ARP is RFC 826, neighbour discovery RFC 4861.
    """
    mine = [ip_interface(a).ip for a in link.addresses]
    kind = frame[12:14]
    if kind == _ARP:
        return frame[20:22] == _REQUEST and frame[38:42] in [a.packed for a in mine]
    if len(frame) >= 14 and not frame[0] & _MULTICAST:
        return frame[:6].hex() == link.mac.replace(":", "").lower()
    if kind == _IPV6 and len(frame) >= 78 and frame[20] == _ICMPV6 and frame[54] == _SOLICITATION:
        return frame[62:78] in [a.packed for a in mine]
    return False


def answer(frame: bytes, link: Link) -> bytes:
    """What the NIC says to a request of ARP, so that who asks does not give up before the pod can say it."""
    mac, asking, wanted = bytes.fromhex(link.mac.replace(":", "")), frame[22:32], frame[38:42]
    return frame[6:12] + mac + frame[12:20] + _REPLY + mac + wanted + asking


class Doorbells:
    """Of pods that are suspended; each rings once."""

    def __init__(self, network: PodNetwork, runs: Callable[[str], bool]) -> None:
        """`runs` says whether a pod has gone on."""
        self._network = network
        self._runs = runs
        self._hung: dict[str, contextlib.AsyncExitStack] = {}
        self._ports: dict[str, list[PortMapping]] = {}  # of those, as they were then
        self._held: dict[asyncio.Task[None], str] = {}  # connections that are passed on -> pods
        self._changing = asyncio.Lock()

    def holds(self, pod_id: str) -> bool:
        """Whether a connection to it is passed on."""
        return pod_id in self._held.values()

    async def hang(self, pod: Pod, wanted: Callable[[], bool], ring: Ring) -> None:
        """Until it is closed, if it is `wanted` still; anew when the pod publishes other ports by now. Idempotent; what
        cannot be is logged, and tried no more.
        """
        async with self._changing:
            if self._ports.get(pod.id, pod.ports) != pod.ports:
                await self._close(pod.id)
            if pod.id not in self._hung and wanted():
                await self._hang(pod, ring)

    async def _hang(self, pod: Pod, ring: Ring) -> None:
        stack = self._hung[pod.id] = contextlib.AsyncExitStack()
        self._ports[pod.id] = pod.ports
        try:
            links = self._network.links(pod)
            if links and all(link.kind is NicKind.TAP for link in links):
                await self._hang_taps(pod, links, ring, stack)
            else:
                await self._hang_ports(pod, ring, stack)
        except (HyperError, OSError) as error:
            log.warning("pod %s, which is suspended, does not hear of packets: %s", pod.name, error)

    async def close(self, pod_id: str) -> None:
        """Nothing is in the place of its network any more. Idempotent."""
        async with self._changing:
            await self._close(pod_id)

    async def _close(self, pod_id: str) -> None:
        self._ports.pop(pod_id, None)
        if stack := self._hung.pop(pod_id, None):
            await tasks.to_the_end(stack.aclose())

    async def only(self, pod_ids: set[str]) -> None:
        """Those of others are closed."""
        for pod_id in set(self._hung) - pod_ids:
            await self.close(pod_id)

    async def end(self) -> None:
        """All of them are closed, and what they hold."""
        await self.only(set())
        await tasks.end(list(self._held))

    # -- in networks of this host -----------------------------------------------------------

    async def _hang_taps(self, pod: Pod, links: list[Link], ring: Ring, stack: contextlib.AsyncExitStack) -> None:
        stack.push_async_callback(self._network.release, pod.id)
        await self._network.prepare(pod)
        await self._network.enforce(pod)
        loop = asyncio.get_running_loop()
        networks = await self._network.open(pod, stack.enter_context(contextlib.ExitStack()))
        for network, link in zip(networks, links, strict=True):
            assert isinstance(network, TapNetwork)
            os.set_blocking(network.fd, False)
            loop.add_reader(network.fd, _look, network.fd, link, ring)
            stack.callback(loop.remove_reader, network.fd)

    # -- in the user-mode network -------------------------------------------------------------

    async def _hang_ports(self, pod: Pod, ring: Ring, stack: contextlib.AsyncExitStack) -> None:
        for port in pod.ports:
            if port.protocol != "tcp":
                continue
            arrived = partial(self._arrived, pod.id, port, ring)
            server = await asyncio.start_server(
                arrived, port.host_ip or "0.0.0.0", port.host_port, reuse_address=True
            )  # fmt: skip
            stack.callback(server.close)

    def _arrived(
        self, pod_id: str, port: PortMapping, ring: Ring, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if len(self._held) >= _HELD_MAX:
            writer.close()
            return
        held = _Held(port, partial(self._runs, pod_id))
        task = asyncio.create_task(held.pass_on(reader, writer))
        self._held[task] = pod_id
        task.add_done_callback(lambda t: self._held.pop(t, None))
        ring()


def _look(fd: int, link: Link, ring: Ring) -> None:
    """What has come to a tap."""
    try:
        for _ in range(_AT_ONCE):
            frame = os.read(fd, _FRAME)[HEADER:]
            if not is_for(frame, link):
                continue
            if frame[12:14] == _ARP:
                with contextlib.suppress(OSError):  # as if it were lost on its way
                    os.write(fd, bytes(HEADER) + answer(frame, link))
            ring()
    except BlockingIOError:
        pass
    except OSError as error:
        log.warning("the tap %s, which a suspended pod hears of packets by, is gone: %s", link.tap, error)
        asyncio.get_running_loop().remove_reader(fd)


@dataclass(frozen=True)
class _Held:
    """A port on which the pod listens once it `runs`, and nobody else then."""

    port: PortMapping
    runs: Callable[[], bool]

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection that came before the pod went on, when it does."""
        try:
            there, here = await self._reached()
            both = [asyncio.create_task(copy_stream(reader, here)), asyncio.create_task(copy_stream(there, writer))]
            try:
                await asyncio.wait(both[1:])  # what the pod has said is all, however much more it is sent
            finally:
                await tasks.end(both)
                here.close()
        except OSError as error:  # a timeout is one
            log.info("a connection to port %d is not passed on: %s", self.port.host_port, error)
        finally:
            writer.close()

    async def _reached(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """:raise OSError: the pod does not listen in time."""
        where = self.port.host_ip if self.port.host_ip not in ("", "0.0.0.0") else "127.0.0.1"
        async with asyncio.timeout(_PATIENCE):
            while True:
                await asyncio.sleep(_AGAIN)
                if self.runs():
                    with contextlib.suppress(OSError):
                        return await asyncio.open_connection(where, self.port.host_port)
