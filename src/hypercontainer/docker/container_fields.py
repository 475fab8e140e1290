# SPDX-License-Identifier: Apache-2.0
"""What becomes of the fields of a container's request that are not taken to the engine: `container_bodies` has those.

A field has no meaning in a virtual machine, or only one value that every virtual machine has. Clients send most fields
in every request, with defaults; those are taken, and all else is refused by the field's name (docs/docker.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import Unsupported

_POD = "containers share that in one pod (`hyperctl pod create`)"


@dataclass(frozen=True)
class Only:
    """A field with the values that are taken besides nothing, empty and 0; "NAME:" takes what begins so."""

    why: str  # the others are not
    values: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Noted:
    """A field that is for clients themselves: given back as it came."""


NOTED = Noted()
_WINDOWS = Only("containers of Windows are not run here")
_IO = Only("the disk of a virtual machine has no limits of its own yet")
_REALTIME = Only("a virtual machine's CPUs are not scheduled in real time")

CONFIG: dict[str, Only | Noted] = {
    "AttachStdin": NOTED,
    "AttachStdout": NOTED,
    "AttachStderr": NOTED,
    "StdinOnce": NOTED,
    "ArgsEscaped": _WINDOWS,
    "OnBuild": NOTED,
    "Shell": NOTED,
}

HOST_CONFIG: dict[str, Only | Noted] = {
    "ContainerIDFile": NOTED,
    "VolumeDriver": Only("there are no drivers of volumes but `local`", ("local",)),
    "CgroupnsMode": Only("a virtual machine has control groups of its own, and cannot see the host's", ("private",)),
    "Cgroup": Only(f"a virtual machine has control groups of its own; {_POD}"),
    "CgroupParent": Only("a virtual machine's place among the host's control groups is hyperd's to choose"),
    "IpcMode": Only(f"a virtual machine has its own IPC; {_POD}", ("private", "shareable")),
    "PidMode": Only(f"a virtual machine cannot see the processes of this host, or of another one; {_POD}"),
    "UTSMode": Only("a virtual machine has its own host name: set it with Hostname"),
    "UsernsMode": Only("users of a virtual machine are its own already", ("host",)),
    "OomScoreAdj": Only("a virtual machine's kernel ends only its own processes: limit it with Memory"),
    "StorageOpt": Only("the size of root disks is hyperd's setting `scratch-size`"),
    "Runtime": Only("there is one runtime: every container is a virtual machine", ("runc", "io.containerd.runc.v2")),
    "Isolation": Only("a container is always isolated by a virtual machine", ("default",)),
    "MaskedPaths": Only("paths are unmasked only by Privileged"),
    "ReadonlyPaths": Only("paths are made writable only by Privileged"),
    "CpuShares": Only("shares weigh containers of one kernel, and each virtual machine has its own: use NanoCpus",
                      (1024,)),
    "BlkioWeight": Only("weights are of containers of one kernel, and each virtual machine has its own"),
    "BlkioWeightDevice": Only("devices of this host are not in a virtual machine"),
    "BlkioDeviceReadBps": _IO,
    "BlkioDeviceWriteBps": _IO,
    "BlkioDeviceReadIOps": _IO,
    "BlkioDeviceWriteIOps": _IO,
    "CpuRealtimePeriod": _REALTIME,
    "CpuRealtimeRuntime": _REALTIME,
    "CpusetCpus": Only("a virtual machine is not tied to CPUs of this host: limit it with NanoCpus"),
    "CpusetMems": Only("a virtual machine is not tied to memory nodes of this host"),
    "DeviceCgroupRules": Only("devices of a virtual machine are its own: Privileged opens them"),
    "DeviceRequests": Only("a GPU of this host cannot be brought into a virtual machine"),
    "KernelMemory": Only("Linux has no such limit any more"),
    "KernelMemoryTCP": Only("the memory of a virtual machine is limited as a whole: use Memory"),
    "MemorySwappiness": Only("a virtual machine does not swap", (-1,)),
    "OomKillDisable": Only("a virtual machine that may not end a process would stand still"),
    "CpuCount": _WINDOWS,
    "CpuPercent": _WINDOWS,
    "IOMaximumIOps": _WINDOWS,
    "IOMaximumBandwidth": _WINDOWS,
}  # fmt: skip

# Of EndpointsConfig; what is an endpoint's state comes back from clients that read it before, and says nothing.
ENDPOINT: dict[str, Only | Noted] = {
    "DriverOpts": Only("networks have no driver options"),
    **dict.fromkeys(
        ("NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway", "GlobalIPv6Address",
         "GlobalIPv6PrefixLen", "DNSNames"), NOTED,
    ),
}  # fmt: skip


def check(what: str, given: dict[str, Any], table: dict[str, Only | Noted]) -> None:
    """Whether each field of a document has a value that is taken; `what` names the document.

    :raise Unsupported: with the field, its value, and why not.
    """
    for name, rule in table.items():
        value = given.get(name)
        if isinstance(rule, Only) and value and value not in rule.values:
            shown = repr(value) if len(repr(value)) <= 60 else "…"
            raise Unsupported(f"{what}.{name} {shown}: {rule.why}")


def noted(given: dict[str, Any]) -> dict[str, Any]:
    """The fields that say something, as they are kept to be given back; an empty list is not the same as none."""
    return {name: value for name, value in given.items() if value not in (None, "", 0, False)}
