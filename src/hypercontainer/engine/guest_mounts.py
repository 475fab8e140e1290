# SPDX-License-Identifier: Apache-2.0
"""Volumes as the guest mounts them, and as its containers bind them."""

from __future__ import annotations

import asyncio
import re
import socket
from ipaddress import ip_address

from ..errors import Unavailable
from ..model.network import USER_MODE_OPEN
from ..model.status import Container, MountPoint, Pod, PodVolume
from ..network import usermode
from ..protocol.constants import MOUNT_COPY_UP, MOUNT_SCRATCH, MOUNT_VOLUME, Builtin
from ..protocol.messages import GuestMount
from .builtins import run_builtin
from .machine_disks import volume_serial
from .runtime import Runtime
from .shares import Shares

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8  # linux/mount.h
_RESOLVE_TIMEOUT = 10.0  # seconds, for a name server


async def mount_volume(runtime: Runtime, pod: Pod, volume: PodVolume, shares: Shares) -> str:
    """Mount it in the guest; what containers call it there.

    :raise GuestError: when the guest cannot. :raise InvalidState: a directory for a machine that runs,
    and has none, or no jail.
    """
    what = f"volume {volume.name}"
    if volume.kind == "directory":
        return await shares.mount(runtime, pod, volume)
    name = volume_serial(volume)
    flags = str(MS_RDONLY if volume.read_only else 0)
    if volume.kind == "tmpfs":
        given = {"mode": "1777", **volume.options, **({"size": str(volume.size)} if volume.size else {})}
        options = ",".join(f"{k}={v}" for k, v in given.items())
        await run_builtin(
            runtime.agent, Builtin.MOUNT, name, "tmpfs", "tmpfs", str(MS_NOSUID | MS_NODEV), options, what=what
        )
    elif volume.kind == "nfs":
        source, options = await nfs_source(volume)
        if source.startswith(f"{usermode.GATEWAY}:") and pod.spec.network != USER_MODE_OPEN:
            raise Unavailable(f"{what}: its NFS server is on this host's loopback, which the pod does not reach",
                              hint=f"use an address of its network, or --network {USER_MODE_OPEN}")  # fmt: skip
        await run_builtin(runtime.agent, Builtin.MOUNT, name, volume.fstype, source, flags, options, what=what)
    else:
        # What is deleted in a disk of ours leaves the host's, too; one of the user's may be laid out on purpose.
        options = "discard" if volume.named or volume.anonymous else ""
        await run_builtin(
            runtime.agent,
            Builtin.MOUNT,
            name,
            volume.fstype,
            f"disk:{runtime.name_of(name)}",
            flags,
            options,
            what=what,
        )
    return name


async def nfs_source(volume: PodVolume) -> tuple[str, str]:
    """Device and options of an NFS mount; the kernel wants the server as an address.

    :raise Unavailable: when the name cannot be resolved.
    """
    server, _, path = volume.source.partition(":/")
    try:
        async with asyncio.timeout(_RESOLVE_TIMEOUT):
            found = await asyncio.get_running_loop().getaddrinfo(server.strip("[]"), None, type=socket.SOCK_STREAM)
        address = found[0][4][0]
    except OSError as error:  # a timeout is one
        raise Unavailable(
            f"volume {volume.name}: the NFS server {server!r} cannot be resolved", hint="check its name"
        ) from error
    if ip_address(address).is_loopback:
        address = usermode.GATEWAY  # this host, as the pod sees it
    options = {
        "vers": "4.2" if volume.fstype == "nfs4" else "3",
        "addr": str(address),
        "proto": "tcp",
        **volume.options,
    }
    if volume.fstype == "nfs4":
        options.setdefault("clientaddr", usermode.ADDRESS.partition("/")[0])
    else:
        options.setdefault("nolock", "")
        options.setdefault("mountproto", "tcp")
        options.setdefault("mountaddr", str(address))
    return f"{address}:/{path}", ",".join(f"{k}={v}" if v else k for k, v in options.items())


async def unmount_volume(runtime: Runtime, volume: PodVolume) -> None:
    """One that is no directory of the host: those are `Shares`'."""
    await run_builtin(runtime.agent, Builtin.UNMOUNT, volume_serial(volume), what=f"volume {volume.name}")


def guest_mounts(container: Container, volumes: dict[str, str]) -> tuple[GuestMount, ...]:
    """The container's mounts, outer ones first."""
    points = sorted(container.mounts, key=lambda p: p.mount.target.rstrip("/").count("/"))
    return tuple(_guest_mount(point, volumes) for point in points)


def _guest_mount(point: MountPoint, volumes: dict[str, str]) -> GuestMount:
    m = point.mount
    read_only = MS_RDONLY if m.read_only else 0
    if m.type == "tmpfs":
        given = {"size": m.size, "uid": m.uid, "gid": m.gid}
        data = ",".join([f"mode={m.mode:o}", *(f"{key}={value}" for key, value in given.items() if value)])
        flags = MS_NOSUID | MS_NODEV | (0 if m.exec else MS_NOEXEC) | read_only
        return GuestMount("tmpfs", m.target, "tmpfs", flags, data)
    copy = MOUNT_COPY_UP if m.copy_up and m.type == "volume" and not m.read_only else 0
    if not point.volume:
        slug = re.sub(r"[^a-zA-Z0-9.-]", "_", m.target.strip("/")) or "root"
        return GuestMount(MOUNT_SCRATCH, m.target, flags=copy | read_only, data=f"volumes/{slug}")
    return GuestMount(MOUNT_VOLUME, m.target, volumes[point.volume], copy | read_only, m.sub_path)
