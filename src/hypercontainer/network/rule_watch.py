# SPDX-License-Identifier: Apache-2.0
"""Rules that somebody else takes away are put back: `nft flush ruleset`, the start of a firewall.

The kernel tells whoever listens of each change of nftables, as messages of netlink(7): linux/netfilter/nfnetlink.h,
linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator

from ..errors import HyperError
from ..sys import tasks

log = logging.getLogger(__name__)
INET, BRIDGE = 1, 7  # NFPROTO_INET, NFPROTO_BRIDGE: families of tables
_NETFILTER, _GROUP, _SUBSYSTEM = 12, 7, 10  # NETLINK_NETFILTER, NFNLGRP_NFTABLES, NFNL_SUBSYS_NFTABLES
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_NEW_TABLE, _GONE_TABLE = 0, 2  # NFT_MSG_NEWTABLE, DELTABLE
_REMOVALS = {_GONE_TABLE, 5, 8, 11, 14}  # and DELCHAIN, DELRULE, DELSET, DELSETELEM
_TOLD = {_NEW_TABLE, *_REMOVALS}
_HEADER, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")  # nlmsghdr; nlattr
_GENERAL = 4  # bytes of nfgenmsg, whose first is the family
_TABLE = 1  # the attribute that names the table, in each of these messages
_READ = 1 << 18
_PAUSE, _PAUSE_MAX = 1.0, 60.0  # seconds from one time to the next; twice as long each time


class RuleWatch:
    """That of one owner's tables."""

    def __init__(self, tables: set[tuple[int, str]], put_back: Callable[[], Awaitable[None]]) -> None:
        """`tables` are families and names; `put_back` makes them anew, within `changing`."""
        self._tables = tables
        self._names = tuple({name.encode() + b"\0" for _, name in tables})
        self._put_back = put_back
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._changes = 0  # of the owner's, under way
        self._missing: set[tuple[int, str]] = set()  # tables of which that they went was told last
        self._gone = False

    def open(self) -> None:
        """From here on; where the kernel does not let us listen, nothing is put back."""
        sock = None
        try:
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETFILTER)
            sock.bind((0, 0))
            sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
        except OSError as error:
            log.info("what others do to this host's nftables is not heard: %s", error)
            if sock:
                sock.close()
            return
        self._socket = sock
        asyncio.get_running_loop().add_reader(sock, self._hear)

    def stop(self) -> None:
        """Hear no more. Idempotent."""
        if sock := self._socket:
            self._socket = None
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()

    async def close(self) -> None:
        """The same, and nothing of it is under way any more."""
        self.stop()
        if self._task:
            await tasks.end([self._task])

    @contextlib.contextmanager
    def changing(self, *, keeps: bool = True) -> Iterator[None]:
        """What goes while the block runs, goes by its owner, but for a table that it `keeps`."""
        self._changes += 1
        try:
            yield
        finally:
            self._removed()
            self._changes -= 1
            if keeps and self._missing and self._socket:
                self._begin()

    def _hear(self) -> None:
        if self._removed() and not self._changes:
            self._begin()

    def _begin(self) -> None:
        self._gone = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._put_all_back())

    async def _put_all_back(self) -> None:
        """Who takes them away again and again gets ever more time."""
        pause = _PAUSE
        while self._gone:
            self._gone = False
            try:
                await self._put_back()
                log.warning("somebody else removed hyperd's rules of nftables: they are put back")
            except HyperError as error:
                log.warning("rules of nftables that somebody else removed cannot be put back: %s", error.message)
                self._gone = True
            await asyncio.sleep(pause)
            pause = min(2 * pause, _PAUSE_MAX)

    def _removed(self) -> bool:
        """Whether something of the tables went, by all that the kernel has told since."""
        found = lost = False
        while self._socket:
            try:
                data = self._socket.recv(_READ)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    log.info("what others do to this host's nftables is not heard any more: %s", error)
                    self.stop()
                    break
                found = lost = True  # more than the kernel keeps: nobody knows
                continue
            found |= any(name in data for name in self._names) and self._is_removal(data)
        if lost:
            self._missing.clear()
        return found

    def _is_removal(self, data: bytes) -> bool:
        at, found = 0, False
        while at + _HEADER.size + _GENERAL + _ATTRIBUTE.size <= len(data):
            length, kind, *_ = _HEADER.unpack_from(data, at)
            verb = kind & 0xFF
            if kind >> 8 == _SUBSYSTEM and verb in _TOLD and (table := self._table_of(data, at + _HEADER.size)):
                found |= verb in _REMOVALS
                if verb == _GONE_TABLE:
                    self._missing.add(table)
                elif verb == _NEW_TABLE:
                    self._missing.discard(table)
            at += max(_HEADER.size, (length + 3) & ~3)
        return found

    def _table_of(self, data: bytes, at: int) -> tuple[int, str] | None:
        """Of what is told there, if it is one of these."""
        first = at + _GENERAL
        size, attribute = _ATTRIBUTE.unpack_from(data, first)
        name = data[first + _ATTRIBUTE.size : first + size].rstrip(b"\0").decode(errors="replace")
        table = data[at], name
        return table if attribute == _TABLE and table in self._tables else None
