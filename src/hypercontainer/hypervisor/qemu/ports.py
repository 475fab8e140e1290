# SPDX-License-Identifier: Apache-2.0
"""Whether a host port can be published, asked before QEMU is: its own message is hard to read."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from ...errors import Conflict
from ...model.specs import PortMapping


@contextlib.contextmanager
def _bound(port: PortMapping, number: int) -> Iterator[int]:
    kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as sock:
        if port.protocol == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((port.host_ip or "0.0.0.0", number))
        yield sock.getsockname()[1]


def check_port_free(port: PortMapping) -> int:
    """The host port that would be published; one that is free when none was named.

    :raise Conflict: when it is taken or the address is not this host's.
    """
    try:
        with _bound(port, port.host_port) as number:
            return number
    except OSError as error:
        where = f"{port.host_ip or '0.0.0.0'}:{port.host_port}/{port.protocol}"
        raise Conflict(f"cannot publish {where}: {os.strerror(error.errno or 0)}",
                       hint="choose another host port with -p") from error  # fmt: skip
