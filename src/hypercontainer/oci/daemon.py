# SPDX-License-Identifier: Apache-2.0
"""hyperd, as this runtime asks it: JSON over its REST API. The model's types are not imported: they take too long."""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import Any

from ..client.base import raise_error, target
from ..client.transport import Connection
from ..errors import Unavailable

START = 300.0  # seconds for an answer; a start boots a machine, and a full disk may be waited for


class Daemon:
    """At this socket."""

    def __init__(self, path: str) -> None:
        path = path.removeprefix("unix://")
        self.path = path if path.startswith("tcp://") else os.path.abspath(path)

    def call(self, method: str, route: str, body: Any = None, *, limit: float = START, **query: str) -> Any:
        """The answer, decoded, which comes within `limit` seconds.

        :raise Unavailable: no hyperd listens there. :raise HyperError: what it says is wrong.
        """
        response = self._connect(limit).request(
            method, target(route, query), {"Content-Type": "application/json"},
            b"" if body is None else json.dumps(body).encode(),
        )  # fmt: skip
        text = response.read()
        if response.status >= 400:
            raise_error(text, response.status)
        return json.loads(text) if text else None

    def attach(self, route: str, **query: str) -> Connection:
        """A connection that carries frames, as `api/upgrade.py` of the daemon says."""
        connection = self._connect(None)
        response = connection.request("POST", target(route, query), {"Connection": "Upgrade", "Upgrade": "tcp"})
        if response.status >= 400:
            raise_error(response.read(), response.status)
        return connection

    def shares_users(self) -> bool:
        """Whether it is in our user namespace; False, too, where that cannot be told."""
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(self.path)
                pid = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
            return os.readlink(f"/proc/{pid}/ns/user") == os.readlink("/proc/self/ns/user")
        except OSError:
            return False

    def _connect(self, timeout: float | None) -> Connection:
        try:
            return Connection(self.path, timeout)
        except Unavailable:  # callers take "no such file" in an error for a program that is missing
            raise Unavailable(
                f"no hyperd listens at {self.path}, which would run the container",
                hint="start it, or name its socket with --hyper-host or HYPER_HOST",
            ) from None
