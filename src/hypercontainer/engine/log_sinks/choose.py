# SPDX-License-Identifier: Apache-2.0
"""From `--log-driver` and `--log-opt` to sinks, and what is not there on this host.

journald and syslog have a copy in a file of this host, as Docker's dual logging: that is what `logs` and `attach` read,
what is safe in a crash, and what holds a process back on a full disk. Somebody else's journal never does.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from ...errors import Unsupported
from ...model import log_options
from ...model.specs import LogOptions
from ...model.status import Container
from ...sys import tasks
from . import journald, syslog
from .files import FileSink, json_file, k8s_file
from .sender import Sender
from .sink import LogSink, NullSink

_LAST_WORDS = 2.0  # seconds in which what waits is sent when the daemon ends


def check(options: LogOptions) -> None:
    """:raise InvalidArgument: an option is wrong. :raise Unsupported: there is no such receiver on this host."""
    log_options.check(options)
    if options.driver == "journald" and not journald.SOCKET.exists():
        raise Unsupported(
            f"there is no systemd-journald on this host ({journald.SOCKET})", hint="choose another --log-driver"
        )
    if options.driver == "syslog":
        _syslog_address(options)


class LogSinks:
    """Makes sinks, and owns the tasks of those that send."""

    def __init__(self, max_size: int, max_files: int, default: LogOptions) -> None:
        """The daemon's limits of a file: bytes, and how many are kept; and what holds where a request says nothing."""
        self._max_size, self._max_files, self._default = max_size, max_files, default
        self._senders: set[Sender] = set()

    def resolved(self, options: LogOptions) -> LogOptions:
        """With the daemon's defaults filled in.

        :raise InvalidArgument: an option is wrong. :raise Unsupported: there is no such receiver on this host.
        """
        options = log_options.with_defaults(options, self._default)
        check(options)
        return options

    def local(self, container: Container) -> LogSink:
        """What keeps it on this host."""
        options = container.spec.log
        if log_options.keeps_no_copy(options):
            return NullSink()
        path = Path(container.log_path)
        if options.driver == "k8s-file" and options.path and not options.max_size:
            return FileSink(path, k8s_file)  # who names the file rotates it, as the kubelet does
        limits = options.max_size or self._max_size, options.max_files or self._max_files
        format_ = k8s_file if options.driver == "k8s-file" else json_file
        return FileSink(path, format_, max_size=limits[0], max_files=limits[1])

    def remote(self, container: Container) -> Sender | None:
        """Who gets it besides."""
        options = container.spec.log
        if options.driver not in ("journald", "syslog"):
            return None
        names = {
            "ID": container.id[:12], "FullID": container.id, "Name": container.name, "ImageName": container.image,
            "ImageID": container.image_id.removeprefix("sha256:")[:12], "ImageFullID": container.image_id,
            "DaemonName": "hyperd",
        }  # fmt: skip
        tag = log_options.write_tag(options.options.get("tag", ""), names)
        if options.driver == "journald":
            fields = {
                "CONTAINER_ID": names["ID"], "CONTAINER_ID_FULL": names["FullID"], "CONTAINER_NAME": names["Name"],
                "IMAGE_NAME": names["ImageName"],
            }  # fmt: skip
            made = journald.journald(f"the journal for container {container.name}", fields, tag, journald.SOCKET)
        else:
            address = _syslog_address(options, must=False)
            format_ = options.options.get("syslog-format", "")
            header = syslog.header(format_, log_options.facility(options), tag, socket.gethostname())
            made = syslog.syslog(f"syslog for container {container.name}", address, header)
        self._senders = {s for s in self._senders if s.task is None or not s.task.done()} | {made}
        return made

    def troubles(self) -> list[tuple[str, str]]:
        """Who does not get what is sent now, and why."""
        return sorted((s.what, s.error.strerror or str(s.error)) for s in self._senders if s.error)

    async def close(self) -> None:
        """What waits is sent if it can be, and the tasks are ended."""
        running = [s.task for s in self._senders if s.task and not s.task.done()]
        for sender in self._senders:
            sender.close()
        if running:
            await asyncio.wait(running, timeout=_LAST_WORDS)
        await tasks.end(t for t in running if not t.done())


def _syslog_address(options: LogOptions, *, must: bool = True) -> tuple[str, str, int]:
    """With this host's own filled in. :raise Unsupported: there is none, and it `must` be there."""
    transport, host, port = log_options.syslog_address(options)
    if not transport:
        found = next((p for p in syslog.LOCAL if p.exists()), None)
        if found is None and must:
            raise Unsupported(
                f"there is no syslog on this host ({syslog.LOCAL[0]})",
                hint="name one by --log-opt syslog-address=udp://HOST:PORT",
            )
        return "unix", str(found or syslog.LOCAL[0]), 0
    if transport == "unix" and must and not Path(host).exists():
        raise Unsupported(f"there is no syslog at {host}", hint="see --log-opt syslog-address")
    return transport, host, port
