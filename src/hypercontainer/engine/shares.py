# SPDX-License-Identifier: Apache-2.0
"""By what directories of the host come to guests: one tree for each machine, whichever way.

A machine that boots for a pod with directories has a device for them (virtiofs). One that goes on from a template, or
that booted without, gets them when the first is mounted: by a byte stream (`facets.FileStream`), from the same server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import GuestError, InvalidState, Unavailable, Unsupported
from ..hypervisor.facets import FileStream
from ..model.status import Container, Pod, PodVolume
from ..protocol.constants import Builtin
from ..volumes import share, submounts
from ..volumes.share import TAG
from .builtins import run_builtin
from .machine_config import shared_entries, shared_names
from .runtime import Runtime

SHARE = "share"  # the guest's name of the tree
_KEY = f"/{SHARE}"  # among volumes that it has mounted: none of these has a slash in its name


@dataclass
class Shares:
    """As the daemon's configuration says."""

    virtiofs: bool  # may be used; else there are none
    _follower: submounts.Follower = field(default_factory=submounts.Follower)
    _following: asyncio.Lock = field(default_factory=asyncio.Lock)  # who changes a tree by what it has

    async def mount(self, runtime: Runtime, pod: Pod, volume: PodVolume) -> str:
        """Its place in the tree, to which it is added where it was not there when that was first served.

        :raise GuestError: the guest cannot mount it. :raise InvalidState: the machine runs, and takes none.
        """
        known = runtime.directories
        if known == [] and runtime.server is None:
            await self._serve(runtime, pod)
        directories = shared_names(pod) if runtime.directories is None else runtime.directories
        if volume.name not in directories and volume.name not in runtime.late:
            await _add(runtime, pod, volume)
        if _KEY not in runtime.volumes:
            try:
                await run_builtin(
                    runtime.agent, Builtin.MOUNT, SHARE, "virtiofs", TAG, "0", "", what=f"volume {volume.name}"
                )
            except GuestError as error:
                if known is not None:
                    raise
                raise _not_while_it_runs(pod) from error
            runtime.volumes[_KEY] = SHARE
        return f"{SHARE}/{runtime.late.get(volume.name) or directories.index(volume.name)}"

    async def forget(self, runtime: Runtime, pod: Pod, place: str) -> None:
        """Take a place out of the tree that the pod is served, when no container of it has it mounted any more.

        What is not to be had in the guest costs nothing but the place: it goes with the machine, too.
        """
        with contextlib.suppress(GuestError):
            await run_builtin(runtime.agent, Builtin.UNMOUNT, f"{SHARE}/{place}", what=f"a directory of {pod.name}")
        if runtime.server:
            with contextlib.suppress(Unavailable, Unsupported):
                await share.remove(runtime.server, place)

    async def follow(self, runtime: Runtime, pod: Pod, containers: Iterable[Container]) -> list[str]:
        """Bring what is mounted on the host below directories whose containers want that, and take out what is not.

        The places in the tree where something is no longer mounted. A server that has ended is left alone.
        """
        gone = []
        if runtime.server and (followed := _followed(runtime, pod, containers)):
            async with self._following:
                with contextlib.suppress(Unavailable):
                    for each in followed:
                        gone += await self._follower.follow(runtime.server, each)
        return gone

    def forget_servers(self, but: set[int]) -> None:
        """Know nothing any more of servers but these processes."""
        self._follower.forget(but)

    async def _serve(self, runtime: Runtime, pod: Pod) -> None:
        """All that the pod has by now, to a machine without a device for them."""
        if found := share.noted(runtime.directory):
            runtime.server, runtime.directories = found
            runtime.volumes[_KEY] = SHARE
            return
        machine = runtime.machine
        if not isinstance(machine, FileStream):
            raise _not_while_it_runs(pod)
        entries, names = shared_entries(pod), shared_names(pod)
        share.check(entries)
        binary = share.require_virtiofsd(allowed=self.virtiofs)

        async def mount(channel: str) -> None:
            await run_builtin(runtime.agent, Builtin.SHARE, SHARE, channel, what="directories of the host")

        async def stream() -> socket.socket:
            return await machine.open_files(mount)

        allotment = runtime.allotment
        runtime.server = await share.serve(
            binary, runtime.directory, entries, names, allotment.group.directories, stream, user=allotment.user,
            root=os.geteuid() == 0,
        )  # fmt: skip
        runtime.directories = names
        runtime.volumes[_KEY] = SHARE


def _followed(runtime: Runtime, pod: Pod, containers: Iterable[Container]) -> list[submounts.Followed]:
    """One of each place; it is for reading where nobody may write."""
    volumes = {v.name: v for v in pod.volumes}
    directories = shared_names(pod) if runtime.directories is None else runtime.directories
    found: dict[str, submounts.Followed] = {}
    for point in (p for c in containers for p in c.mounts if p.mount.propagation and p.volume in runtime.volumes):
        volume, sub_path = volumes[point.volume], os.path.normpath(f"/{point.mount.sub_path}").lstrip("/")
        place = os.path.join(runtime.late.get(volume.name) or str(directories.index(volume.name)), sub_path)
        source = os.path.join(os.path.realpath(volume.source), sub_path)
        read_only = volume.read_only or (point.mount.read_only and (place not in found or found[place].read_only))
        found[place] = submounts.Followed(source, place.rstrip("/"), read_only)
    return list(found.values())


async def _add(runtime: Runtime, pod: Pod, volume: PodVolume) -> None:
    if runtime.server is None:
        raise _not_while_it_runs(pod)
    try:
        runtime.late[volume.name] = await share.add(runtime.server, share.Entry(Path(volume.source), volume.read_only))
    except Unsupported as error:
        raise _not_while_it_runs(pod) from error


def _not_while_it_runs(pod: Pod) -> InvalidState:
    return InvalidState(f"a directory of the host cannot be added to pod {pod.name} while it runs",
                        hint="stop the pod first, or use a named volume")  # fmt: skip
