# SPDX-License-Identifier: Apache-2.0
"""Where hyperjail and its library are in this installation, and how it is started."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..errors import Unavailable
from .jail import Order

BINARIES = Path(__file__).parent / "bin"
REINSTALL = "run `make setup` in the source tree, or reinstall the package"
START = 60.0  # seconds for a program to start on a busy host


def binary(name: str = "hyperjail") -> Path:
    """:raise Unavailable: when this installation has none."""
    path = BINARIES / f"{name}-{platform.machine()}"
    if not path.exists():
        raise Unavailable(f"{name} is not in this installation",
                          hint=REINSTALL)  # fmt: skip
    return path


def start(
    args: Sequence[str], order: Order, environment: Mapping[str, str], descriptors: Iterable[int]
) -> subprocess.Popen[bytes]:
    """What becomes the program of the order, with these descriptors besides.

    :raise Unavailable: it cannot be executed.
    """
    try:
        return subprocess.Popen(
            args,
            stdin=order.input if order.input >= 0 else subprocess.DEVNULL,
            stdout=order.output,
            stderr=order.errors if order.errors >= 0 else order.output,
            pass_fds=[*order.descriptors, *descriptors],
            start_new_session=True,  # it outlives the daemon
            env=dict(environment),
        )
    except OSError as error:
        raise Unavailable(f"{args[0]} cannot be started: {error.strerror}") from error
