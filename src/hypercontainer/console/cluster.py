# SPDX-License-Identifier: Apache-2.0
"""A project's Pods in the cluster, beside its containers on this host."""

from __future__ import annotations

from aiohttp import web

from .call import Call, Pages

pages = Pages()
_LINES = 500  # of a log


@pages.get("/cluster")
async def list_(c: Call) -> web.StreamResponse:
    """By project and name, with their nodes."""
    return c.page("cluster.html", title="Cluster", pods=await c.engine.cluster.all())


@pages.get("/cluster/{name}")
async def log(c: Call) -> web.StreamResponse:
    """The last output of one."""
    found = await c.engine.cluster.log(c.name, _LINES)
    return c.page("cluster_log.html", title=c.name, name=c.name, log=found)


@pages.post("/cluster/{name}/stop")
async def stop(c: Call) -> web.StreamResponse:
    """Let it end."""
    await c.engine.cluster.stop(c.name)
    return c.see("cluster")
