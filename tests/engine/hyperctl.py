# SPDX-License-Identifier: Apache-2.0
"""Calls of hyperctl as processes, without its imports each time: an interpreter that has them is forked for each.

That one is started with the first call, and ends with the process that started it. It is given, per call, arguments,
environment and directory, and descriptors for both outputs and for the exit status.
"""

from __future__ import annotations

import array
import asyncio
import atexit
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys

_MESSAGE = 1 << 20  # bytes; what a call is may take no more
_base: socket.socket | None = None


async def call(*args: str) -> tuple[int, bytes, bytes]:
    """The exit status, and what went to stdout and stderr; stdin is empty."""
    ours, theirs = socket.socketpair()
    outputs = [os.memfd_create("out"), os.memfd_create("err")]
    try:
        with theirs:
            told = json.dumps([args, dict(os.environ), os.getcwd()]).encode()
            fds = array.array("i", [*outputs, theirs.fileno()])
            _interpreter().sendmsg([told], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            status = int(await reader.read())
        finally:
            writer.close()
        out, err = (os.pread(fd, os.fstat(fd).st_size, 0) for fd in outputs)
        return status, out, err
    finally:
        for fd in outputs:
            os.close(fd)


def _interpreter() -> socket.socket:
    global _base
    if _base is None:
        _base, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _MESSAGE)
            _base.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE)
            command = [sys.executable, __file__]
            process = subprocess.Popen(command, stdin=theirs, start_new_session=True)
        atexit.register(process.wait)
        atexit.register(_base.close)  # the last that is registered is the first that is called
    return _base


def _serve(calls: socket.socket) -> None:
    """Fork for each call, until nobody can call any more."""
    import hypercontainer.hyperctl as package

    for module in pkgutil.iter_modules(package.__path__):
        if module.name != "__main__":
            importlib.import_module(f"{package.__name__}.{module.name}")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for calls
    while True:
        told, fds, _, _ = socket.recv_fds(calls, _MESSAGE, 3)
        if not told:
            return
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            calls.close()
            _answer(*json.loads(told), *fds)
        for fd in fds:
            os.close(fd)


def _answer(args: list[str], environment: dict[str, str], directory: str, out: int, err: int, answer: int) -> None:
    """Run one call in a process of its own, and tell its exit status. Never returns."""
    pid = os.fork()
    if pid == 0:
        os.close(answer)
        for fd, number in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
            os.dup2(fd, number)
            os.close(fd)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(directory)
        sys.argv = ["hyperctl", *args]

        from hypercontainer.hyperctl.main import main

        main()
    os.write(answer, str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
    os._exit(0)


if __name__ == "__main__":
    sys.path.pop(0)  # this file's own directory, in which names of modules are those of tests
    _serve(socket.socket(fileno=0))
