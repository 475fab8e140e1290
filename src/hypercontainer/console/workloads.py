# SPDX-License-Identifier: Apache-2.0
"""Deployments, and jobs by a schedule: how they are, and what may be done to them."""

from __future__ import annotations

from aiohttp import web

from ..model.cron import CronUpdate
from ..model.deployments import DeploymentUpdate
from .call import Call, Pages

pages = Pages()


@pages.get("/workloads")
async def show(c: Call) -> web.StreamResponse:
    """All of both."""
    return c.page(
        "workloads.html",
        title="Deployments and jobs",
        deployments=c.engine.deployments.all(),
        jobs=c.engine.crons.all(),
    )


@pages.post("/deployments/{name}/scale")
async def scale(c: Call) -> web.StreamResponse:
    """Have so many replicas."""
    c.engine.deployments.update(c.name, DeploymentUpdate(replicas=c.number("replicas")))
    return c.see("workloads")


@pages.post("/deployments/{name}/rollback")
async def roll_back(c: Call) -> web.StreamResponse:
    """Make it again what it was."""
    c.engine.deployments.roll_back(c.name)
    return c.see("workloads")


@pages.post("/deployments/{name}/remove")
async def remove_deployment(c: Call) -> web.StreamResponse:
    """Remove it, with its replicas."""
    await c.engine.keeper.remove(c.name)
    return c.see("workloads")


@pages.post("/jobs/{name}/run")
async def run(c: Call) -> web.StreamResponse:
    """Run it now."""
    c.engine.cron_runner.begin(c.name)
    return c.see("workloads")


@pages.post("/jobs/{name}/pause")
async def pause(c: Call) -> web.StreamResponse:
    """Run it no more, or again, by its schedule."""
    c.engine.crons.update(c.name, CronUpdate(paused=not c.engine.crons.find(c.name).paused))
    return c.see("workloads")


@pages.post("/jobs/{name}/remove")
async def remove_job(c: Call) -> web.StreamResponse:
    """Remove it, with the containers of its runs."""
    await c.engine.cron_runner.remove(c.name, force=True)
    return c.see("workloads")
