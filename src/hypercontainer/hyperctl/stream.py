# SPDX-License-Identifier: Apache-2.0
"""An attached process on the standard streams of a command."""

from __future__ import annotations

from ..client.stream import AttachedStream, Teller, forwarding
from ..model.frames import STDERR, STDOUT
from .standard import complain, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..client.transport import Connection


class Standard(Teller):
    """This command's."""

    def write(self, fd: int, data: memoryview) -> None:
        write_all(fd, data)

    def say(self, text: str) -> None:
        complain(text)


def stream_of(
    connection: Connection,
    path: str,
    route: str,
    *,
    stdin: bool,
    terminal: bool,
    proxy: bool = True,
    shown: tuple[int, ...] = (STDOUT, STDERR),
) -> AttachedStream:
    """An attached process, whose `route` signals are sent to, but for a terminal's, which sends keys.

    Of the two outputs only those in `shown` are written.
    """
    on_signal = forwarding(path, route) if proxy and not terminal else None
    return AttachedStream(
        connection, Standard(), stdin=stdin, terminal=terminal, on_signal=on_signal, shown=shown
    )  # fmt: skip
