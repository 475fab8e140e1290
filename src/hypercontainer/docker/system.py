# SPDX-License-Identifier: Apache-2.0
"""The daemon itself: who it is."""

from __future__ import annotations

import platform
from typing import Any

from aiohttp import web

from .. import __version__
from ..model import architectures
from .router import Call, Routes
from .versions import ENGINE, NEWEST, OLDEST

routes = Routes()
_PING = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache", "Builder-Version": "2"}


@routes.get("/_ping")
async def ping(_: Call) -> web.Response:
    """Whether somebody is there; the headers say which version of the API is spoken."""
    return web.Response(text="OK", headers={**_PING, "Swarm": "inactive"})


@routes.head("/_ping")
async def ping_head(_: Call) -> web.Response:
    """The same without a body."""
    return web.Response(headers={**_PING, "Swarm": "inactive"}, content_type="text/plain")


@routes.get("/version")
async def version(c: Call) -> dict[str, Any]:
    """Versions. The engine's is Docker's whose behaviour this is; ours is among the components."""
    ours = c.engine.version()
    facts = {"ApiVersion": str(NEWEST), "MinAPIVersion": str(OLDEST), "Os": ours.os, "Arch": architectures.host()}
    kernel = platform.release()
    return {
        "Platform": {"Name": f"HyperContainer {__version__}: containers are virtual machines"},
        "Components": [
            {
                "Name": "Engine",
                "Version": ENGINE,
                "Details": {**facts, "KernelVersion": kernel, "Experimental": "false"},
            },
            {"Name": "hyperd", "Version": __version__, "Details": {"Python": ours.python}},
            {"Name": "hyperkernel", "Version": ours.kernel, "Details": {}},
            {"Name": "hyperstart", "Version": ours.hyperstart, "Details": {}},
            {"Name": c.engine.drivers.default.name, "Version": ours.qemu, "Details": {}},
        ],
        "Version": ENGINE,
        **facts,
        "KernelVersion": kernel,
        "GitCommit": __version__,
        "GoVersion": "",
        "BuildTime": "",
        "Experimental": False,
    }
