# SPDX-License-Identifier: Apache-2.0
"""Volumes, networks, snapshots, events and quotas."""

from __future__ import annotations

from collections import deque

from aiohttp import web

from ..errors import InvalidArgument
from ..model.network import NetworkSpec
from ..model.pods import VolumeSpec
from ..model.quotas import NAMES, write_amount
from ..model.snapshots import FORKS_MAX, ForkRequest, RestoreRequest, SnapshotRequest
from ..model.units import parse_size
from . import drawing
from .call import Call, Pages

pages = Pages()
_EVENTS = 200  # of the past that the page begins with


@pages.get("/volumes")
async def volumes(c: Call) -> web.StreamResponse:
    """All of them, and the snapshots of volumes."""
    found, snapshots = await c.engine.volumes.all(), c.engine.volume_snapshots.all()
    return c.page("volumes.html", title="Volumes", volumes=found, snapshots=snapshots)


@pages.post("/volumes")
async def create_volume(c: Call) -> web.StreamResponse:
    """Make one."""
    size = c.form.get("size", "").strip()
    await c.engine.volumes.create(VolumeSpec(name=c.form.get("name", "").strip(), size=parse_size(size) if size else 0))
    return c.see("volumes")


@pages.post("/volumes/{name}/remove")
async def remove_volume(c: Call) -> web.StreamResponse:
    """Remove one that nobody uses."""
    await c.engine.volumes.remove(c.name)
    return c.see("volumes")


@pages.post("/volume-snapshots/{name}/volume")
async def volume_of_snapshot(c: Call) -> web.StreamResponse:
    """Make a volume as it was."""
    await c.engine.volume_snapshots.create_volume(VolumeSpec(name=c.form.get("name", "").strip(), snapshot=c.name))
    return c.see("volumes")


@pages.post("/volume-snapshots/{name}/remove")
async def remove_volume_snapshot(c: Call) -> web.StreamResponse:
    """Remove a snapshot of a volume."""
    await c.engine.volume_snapshots.remove(c.name)
    return c.see("volumes")


@pages.get("/networks")
async def networks(c: Call) -> web.StreamResponse:
    """All of them, and who is in them."""
    found = sorted(c.engine.networks.all(), key=lambda n: n.network.name)
    names = {p.id: p.name for p in c.engine.registry.pods(seen=True)}
    ports = drawing.published(c.engine.listing.containers({}), names)
    return c.page("networks.html", title="Networks", networks=found, drawing=drawing.drawn(found, ports))


@pages.post("/networks")
async def create_network(c: Call) -> web.StreamResponse:
    """Make one."""
    await c.engine.networks.create(NetworkSpec(name=c.form.get("name", "").strip()))
    return c.see("networks")


@pages.post("/networks/{name}/remove")
async def remove_network(c: Call) -> web.StreamResponse:
    """Remove one that no pod is in."""
    await c.engine.networks.remove(c.name)
    return c.see("networks")


@pages.get("/snapshots")
async def snapshots(c: Call) -> web.StreamResponse:
    """All of them."""
    running = [x.name for x in c.engine.listing.containers({})]
    return c.page("snapshots.html", title="Snapshots", snapshots=c.engine.snapshots.all(), running=running)


@pages.post("/snapshots")
async def create_snapshot(c: Call) -> web.StreamResponse:
    """Save a pod that runs."""
    request = SnapshotRequest(pod=c.form.get("pod", ""), name=c.form.get("name", "").strip())
    await c.engine.snapshots.create(request)
    return c.see("snapshots")


@pages.post("/snapshots/{name}/restore")
async def restore(c: Call) -> web.StreamResponse:
    """Go on from it."""
    await c.engine.snapshots.restore(c.name, RestoreRequest())
    return c.see("containers")


@pages.post("/snapshots/{name}/remove")
async def remove_snapshot(c: Call) -> web.StreamResponse:
    """Remove it."""
    await c.engine.snapshots.remove(c.name)
    return c.see("snapshots")


@pages.post("/containers/{name}/fork")
async def fork(c: Call) -> web.StreamResponse:
    """Another one that goes on where it is now."""
    pod, count = c.engine.registry.container(c.name).pod, max(1, c.number("count"))
    if count > FORKS_MAX:
        raise InvalidArgument(f"{count} forks at a time are too many", hint=f"give {FORKS_MAX} at most")
    await c.engine.snapshots.fork(pod, ForkRequest(count=count))
    return c.see("containers")


@pages.get("/events", "read", "audit")
async def events(c: Call) -> web.StreamResponse:
    """What happened of late; what happens then comes by `events/live`."""
    past = deque(c.engine.events.past(), maxlen=_EVENTS)
    return c.page("events.html", title="Events", events=list(reversed(past)))


@pages.get("/quota")
async def quota(c: Call) -> web.StreamResponse:
    """What one may have, and has."""
    status = c.engine.quota()
    rows = [(name, getattr(status.used, name), getattr(status.limits, name)) for name in NAMES]
    shown = [
        (name, write_amount(name, used), "no limit" if limit is None else write_amount(name, limit),
         min(100, 100 * used // limit) if limit else None)
        for name, used, limit in rows
    ]  # fmt: skip
    return c.page("quota.html", title="Quota", quota=status, rows=shown)
