# SPDX-License-Identifier: Apache-2.0
"""Jobs that run by a schedule, over REST."""

from __future__ import annotations

from ..model.cron import CronInfo, CronRequest, CronRun, CronUpdate
from .router import Context, Routes

routes = Routes()
_ID = "/crons/{id}"


@routes.post("/crons", body=CronRequest, status=201)
async def create(c: Context) -> CronInfo:
    """Make a job: a container that is run by a schedule."""
    return c.engine.crons.create(await c.body(CronRequest))


@routes.get("/crons")
async def list_(c: Context) -> list[CronInfo]:
    """List jobs, with their runs."""
    return c.engine.crons.all()


@routes.get(_ID)
async def inspect(c: Context) -> CronInfo:
    """Inspect a job, with its runs."""
    return c.engine.crons.info(c.id)


@routes.post(f"{_ID}/update", body=CronUpdate)
async def update(c: Context) -> CronInfo:
    """Change a job; what goes on goes on."""
    return c.engine.crons.update(c.id, await c.body(CronUpdate))


@routes.post(f"{_ID}/run", status=201)
async def run(c: Context) -> CronRun:
    """Run it now, whatever its schedule says; the answer does not wait for its end."""
    return c.engine.cron_runner.begin(c.id)


@routes.delete(_ID, query={"force": "also while a run goes on, which is ended"})
async def remove(c: Context) -> None:
    """Remove a job, with the containers of its runs."""
    await c.engine.cron_runner.remove(c.id, force=c.flag("force"))
