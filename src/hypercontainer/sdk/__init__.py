# SPDX-License-Identifier: Apache-2.0
"""Sandboxes for Python programs: virtual machines made of container images, in which commands are run.

    from hypercontainer.sdk import Sandbox

    with Sandbox.create("busybox") as sandbox:
        print(sandbox.run("uname -a").stdout)

`AsyncSandbox` is the same for asyncio. The modules, lowest first:

    exchange, api   one request of the REST API, and all of them
    limits          timeouts, and what it was that did not answer
    frames          connections that carry frames
    process, processes, interpreter, connection, watch, files, sandbox
                    the asynchronous classes; what they give is in `results`
    runner          what runs code, sent into sandboxes as it is
    portal, sync    the synchronous ones, made of these by scripts/make_sync_sdk.py
"""

from __future__ import annotations

from ..errors import (
    Conflict,
    DeadlineExceeded,
    GuestError,
    HyperError,
    InternalError,
    InvalidArgument,
    InvalidState,
    NoSpace,
    NotFound,
    PermissionDenied,
    StartFailed,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from ..model.files import FileChange, FileEntry
from .connection import AsyncConnection
from .files import AsyncFiles
from .interpreter import AsyncInterpreter
from .process import AsyncProcess
from .processes import AsyncProcesses
from .results import CodeError, CodeResult, CommandFailed, CommandResult, Execution, LogLine, Output, Table
from .sandbox import AsyncSandbox
from .sync.connection import Connection
from .sync.files import Files
from .sync.interpreter import Interpreter
from .sync.process import Process
from .sync.processes import Processes
from .sync.sandbox import Sandbox
from .sync.watch import Watch
from .watch import AsyncWatch

__all__ = [
    "AsyncConnection",
    "AsyncFiles",
    "AsyncInterpreter",
    "AsyncProcess",
    "AsyncProcesses",
    "AsyncSandbox",
    "AsyncWatch",
    "CodeError",
    "CodeResult",
    "CommandFailed",
    "CommandResult",
    "Conflict",
    "Connection",
    "DeadlineExceeded",
    "Execution",
    "FileChange",
    "FileEntry",
    "Files",
    "GuestError",
    "HyperError",
    "InternalError",
    "Interpreter",
    "InvalidArgument",
    "InvalidState",
    "LogLine",
    "NoSpace",
    "NotFound",
    "Output",
    "PermissionDenied",
    "Process",
    "Processes",
    "Sandbox",
    "StartFailed",
    "Table",
    "Unauthorized",
    "Unavailable",
    "Unsupported",
    "Watch",
]
