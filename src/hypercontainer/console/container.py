# SPDX-License-Identifier: Apache-2.0
"""One container: what it is, what it does, and what may be done to it."""

from __future__ import annotations

from aiohttp import web

from ..model.states import ALIVE
from .call import Call, Pages

pages = Pages()
_ONE = "/containers/{name}"


@pages.get(_ONE)
async def show(c: Call) -> web.StreamResponse:
    """All about it."""
    found = c.engine.registry.container(c.name)
    pod = c.engine.registry.pod(found.pod)
    return c.page("container.html", title=found.name, container=found, pod=pod, alive=found.state.status in ALIVE)


@pages.get(f"{_ONE}/terminal", scope="operate")
async def terminal(c: Call) -> web.StreamResponse:
    """A shell in it."""
    return c.page("terminal.html", title="Terminal", container=c.engine.registry.container(c.name))


@pages.post(f"{_ONE}/start")
async def start(c: Call) -> web.StreamResponse:
    """Start it."""
    await c.engine.containers.start(c.name)
    return c.see("containers", c.name)


@pages.post(f"{_ONE}/stop")
async def stop(c: Call) -> web.StreamResponse:
    """Stop it."""
    await c.engine.containers.stop(c.name)
    return c.see("containers", c.name)


@pages.post(f"{_ONE}/restart")
async def restart(c: Call) -> web.StreamResponse:
    """Stop it, and start it."""
    await c.engine.containers.restart(c.name)
    return c.see("containers", c.name)


@pages.post(f"{_ONE}/suspend")
async def suspend(c: Call) -> web.StreamResponse:
    """Put it on the disk."""
    await c.engine.suspensions.suspend(c.engine.registry.container(c.name).pod)
    return c.see("containers", c.name)


@pages.post(f"{_ONE}/remove")
async def remove(c: Call) -> web.StreamResponse:
    """Remove it, though it runs."""
    await c.engine.containers.remove(c.name, force=True)
    return c.see("containers")
