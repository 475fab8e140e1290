# SPDX-License-Identifier: Apache-2.0
"""Descriptors for a process that is about to start; each is closed with the stack that it is made on."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ...errors import Unavailable


def opened(path: Path, stack: contextlib.ExitStack) -> int:
    """:raise Unavailable: there is no such file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Unavailable(f"{path} does not exist") from None
    stack.callback(os.close, fd)
    return fd


def in_memory(text: bytes, stack: contextlib.ExitStack) -> int:
    """A descriptor of a file that any user may open again by it."""
    fd = os.memfd_create("machine", os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    os.write(fd, text)
    return fd


def pipe(path: Path, stack: contextlib.ExitStack) -> int:
    """What is written there waits for a reader, who may come and go; when it is full it is dropped."""
    os.mkfifo(path, 0o600)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd
