# SPDX-License-Identifier: Apache-2.0
"""All calls of the SDK, by what they are given; a test sees to it that none is missing."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from hypercontainer import sdk
from hypercontainer.errors import HyperError

Call = Callable[..., Any]
HERE = str(Path(__file__))
MUCH = bytes(8 << 20)  # more than what lies between two ends of a connection

CLASS_CALLS: dict[str, tuple[object, ...]] = {"create": ("x",), "connect": ("x",), "list": (), "restore": ("x",)}
CALLS: dict[str, dict[str, tuple[object, ...]]] = {
    "AsyncSandbox": {
        "info": (), "is_running": (), "kill": (), "set_lifetime": (), "run": ("true",), "exec": ("true",),
        "interpreter": (), "run_code": ("1",), "ports": (), "address": (80,), "dial": (80,), "metrics": (), "logs": (),
        "pause": (), "suspend": (), "resume": (), "snapshot": (), "fork": (), "set_egress": ([],),
    },
    "AsyncFiles": {
        "read": ("/x",), "read_text": ("/x",), "write": ("/x", "x"), "mkdir": ("/d",), "stat": ("/x",),
        "list": ("/",), "remove": ("/x",), "rename": ("/x", "/y"), "watch": ("/",), "exists": ("/x",),
        "upload": (HERE, "/x"), "download": ("/x", "/nonexistent/x"),
    },
    "AsyncProcesses": {"list": (), "attach": ("x",), "kill": (1,)},
    "AsyncProcess": {
        "output": (), "wait": (), "write": (MUCH,), "close_stdin": (), "resize": (1, 1), "signal": ("TERM",),
        "kill": (), "info": (),
    },
    "AsyncConnection": {"read": (), "write": (MUCH,), "write_eof": ()},
    "AsyncWatch": {"changes": ()},
    "AsyncInterpreter": {"run": ("1",)},
}  # fmt: skip


def missing() -> list[str]:
    """Calls that are not here."""
    found = []
    for name in (name for name in sdk.__all__ if name.startswith("Async")):
        for method, call in inspect.getmembers(getattr(sdk, name), inspect.isroutine):
            here = {*CALLS.get(name, {}), *(CLASS_CALLS if name == "AsyncSandbox" else ())}
            if not method.startswith("_") and method not in here and "timeout" in inspect.signature(call).parameters:
                found.append(f"{name}.{method}")
    return found


async def _first(items: AsyncIterator[Any]) -> Any:
    return await anext(items, None)


async def timed(call: Call, given: tuple[object, ...], seconds: float, **more: Any) -> tuple[float, Any]:
    """How long it took, and what it gave or raised."""
    began = time.monotonic()
    try:
        made = call(*given, timeout=seconds, **more)
        work: Awaitable[Any] = _first(made) if isinstance(made, AsyncIterator) else made
        found: Any = await asyncio.wait_for(work, seconds * 20 + 60)
    except HyperError as error:
        found = error
    return time.monotonic() - began, found
