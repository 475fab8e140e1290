# SPDX-License-Identifier: Apache-2.0
"""What is asked of a running Firecracker: HTTP/1.1 over its unix socket, a connection per question.

https://github.com/firecracker-microvm/firecracker, src/firecracker/swagger/firecracker.yaml. Its answers have a
Content-Length, or no content (204).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from ...errors import Unavailable
from ...sys import deadlines, tasks
from ...sys.documents import UNREADABLE

_ANSWER_MAX = 1 << 20  # bytes


async def ask(path: Path, method: str, what: str, body: dict[str, Any], *, timeout: float = deadlines.MONITOR) -> None:
    """`PUT` or `PATCH` something; whatever is not taken raises.

    :raise Unavailable: with Firecracker's own words, or when it does not answer in `timeout` seconds.
    """
    try:
        status, answer = await tasks.within(_exchange(path, method, what, msgspec.json.encode(body)), timeout)
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise Unavailable(f"Firecracker did not answer {what!r}: {str(error) or 'no time left'}") from error
    if status // 100 != 2:
        raise Unavailable(f"Firecracker did not take {what!r}: {_fault(answer) or status}")


async def _exchange(path: Path, method: str, what: str, body: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        head = f"{method} {what} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        length = _length(lines[1:])
        if length > _ANSWER_MAX:
            raise ValueError("it answers without end")
        return int(lines[0].partition(" ")[2][:3]), await reader.readexactly(length)
    finally:
        writer.close()


def _length(headers: list[str]) -> int:
    for line in headers:
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            return int(value)
    return 0


def _fault(answer: bytes) -> str:
    """Its own words (the swagger's `Error`)."""
    try:
        return str(msgspec.json.decode(answer, type=dict[str, Any]).get("fault_message", ""))
    except UNREADABLE:
        return ""
