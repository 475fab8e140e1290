# SPDX-License-Identifier: Apache-2.0
"""A cluster whose namespaces are projects, over REST."""

from __future__ import annotations

from aiohttp import web

from ..model.cluster import ClusterPod, NodeInfo
from .router import Context, Routes

routes = Routes()


@routes.get("/cluster/nodes", scope="admin")
async def nodes(c: Context) -> list[NodeInfo]:
    """List the nodes whose use is collected, and how far it is, by name."""
    collector = c.engine.accounts.collector
    return collector.nodes() if collector else []


@routes.get("/cluster/pods")
async def pods(c: Context) -> list[ClusterPod]:
    """List a project's Pods in the cluster, by name; the administrator's without a project, of all."""
    return await c.engine.cluster.all()


@routes.delete("/cluster/pods/{id}", scope="operate", status=204)
async def stop(c: Context) -> None:
    """Let a Pod in the cluster end; what owns it may make another."""
    await c.engine.cluster.stop(c.id)


@routes.get("/cluster/pods/{id}/logs", query={"tail": "lines from the end; 1000, where it is left out"},
            stream="text/plain")  # fmt: skip
async def logs(c: Context) -> web.Response:
    """The last output of a Pod's first container."""
    return web.Response(text=await c.engine.cluster.log(c.id, c.number("tail", 1000) or 1))
