# SPDX-License-Identifier: Apache-2.0
"""Docker's flags of run and create that are about the host's kernel, of which a virtual machine has its own.

Each takes the values that say what every virtual machine has, and tells of the others what to do instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from ..errors import InvalidArgument

JOIN = "containers share that in one pod: `hyperctl pod create -n NAME`, then give both --pod NAME"


@dataclass(frozen=True)
class _Flag:
    """One of them: which values are taken, why the others are not, and what to do instead."""

    name: str
    why: str
    instead: str
    fine: tuple[str, ...] = ()
    many: bool = False
    switch: bool = False

    @property
    def key(self) -> str:
        return self.name.replace("-", "_")

    def option(self) -> Any:
        flag = f"--{self.name}"
        if self.switch:
            return click.option(f"{flag}/--no-{self.name}", self.key, default=None, hidden=True)
        return click.option(flag, self.key, default=None if self.many else "", multiple=self.many, hidden=True)


_IO = ("the disk of a virtual machine has no limits of its own", "leave it out")
_WINDOWS = ("it is for containers of Windows", "leave it out")
_REAL_TIME = ("a virtual machine's CPUs are not scheduled in real time", "use --cpus")
_FLAGS = (
    _Flag("device-cgroup-rule", "devices of a virtual machine are its own", "--privileged opens them", many=True),
    _Flag("gpus", "a GPU of this host cannot be brought into a virtual machine",
          "leave --gpus out; as a PCI device it is given by --device and its address, for a kernel that drives it",
          ("0",)),
    _Flag("cpu-shares", "CPU shares weigh containers of one kernel, and each virtual machine has its own",
          "use --cpus", ("0", "1024")),
    _Flag("cpuset-cpus", "a virtual machine is not tied to CPUs of this host", "use --cpus to limit it"),
    _Flag("cpuset-mems", "a virtual machine is not tied to memory nodes of this host", "leave it out"),
    _Flag("cpu-rt-period", *_REAL_TIME, ("0",)),
    _Flag("cpu-rt-runtime", *_REAL_TIME, ("0",)),
    _Flag("cpu-count", *_WINDOWS, ("0",)),
    _Flag("cpu-percent", *_WINDOWS, ("0",)),
    _Flag("io-maxbandwidth", *_WINDOWS, ("0",)),
    _Flag("io-maxiops", *_WINDOWS, ("0",)),
    _Flag("blkio-weight", "weights are of containers of one kernel, and each virtual machine has its own",
          "leave it out", ("0",)),
    _Flag("blkio-weight-device", "devices of this host are not in a virtual machine", "leave it out", many=True),
    _Flag("device-read-bps", *_IO, many=True),
    _Flag("device-read-iops", *_IO, many=True),
    _Flag("device-write-bps", *_IO, many=True),
    _Flag("device-write-iops", *_IO, many=True),
    _Flag("kernel-memory", "Linux has no such limit any more", "use -m", ("0",)),
    _Flag("memory-swappiness", "a virtual machine does not swap", "leave it out", ("-1", "0")),
    _Flag("oom-kill-disable", "a virtual machine that may not end a process would stand still", "give it more with -m",
          switch=True),
    _Flag("oom-score-adj", "the score of one process against the host's is not of a virtual machine, "
          "whose kernel ends only its own", "use -m", ("0",)),
    _Flag("ipc", "a virtual machine has its own IPC", JOIN, ("private", "shareable")),
    _Flag("userns", "users of a virtual machine are its own already", "leave --userns out", ("host",)),
    _Flag("uts", "a virtual machine has its own host name", "set it with --hostname", ("private",)),
    _Flag("cgroupns", "a virtual machine has control groups of its own, and cannot see the host's",
          "leave it out", ("private",)),
    _Flag("cgroup-parent", "a virtual machine's place among the host's control groups is hyperd's to choose",
          "leave it out"),
    _Flag("runtime", "every container is a virtual machine", "choose a hypervisor with --driver",
          ("runc", "io.containerd.runc.v2")),
    _Flag("storage-opt", "all containers' disks have one size, which is the daemon's", "set `scratch_size` of hyperd",
          many=True),
    _Flag("volume-driver", "there are no drivers of volumes but `local`",
          "make the volume with `hyperctl volume create`", ("local",)),
    _Flag("link-local-ip", "networks give their NICs no link-local addresses but the kernel's own", "use --ip, --ip6",
          many=True),
    _Flag("use-api-socket", "a socket of this host cannot be connected to from a virtual machine",
          "give it a token, and HYPER_HOST=tcp://...", switch=True),
)  # fmt: skip
DEVICE = click.option(
    "--device",
    multiple=True,
    metavar="[DOMAIN:]BUS:SLOT.FUNCTION|/dev/vfio/GROUP",
    help="Give the virtual machine a PCI device of this host, which is bound to vfio-pci.",
)
OPTIONS = [
    *(flag.option() for flag in _FLAGS),
    click.option("--disable-content-trust/--enable-content-trust", default=True, hidden=True),
]


def check(o: dict[str, Any]) -> None:
    """:raise InvalidArgument: a flag that asks for what a virtual machine cannot have; with what to do instead."""
    for flag in _FLAGS:
        given = o[flag.key]
        for value in given if isinstance(given, tuple) else (given,):
            if value and value not in flag.fine:
                shown = "" if flag.switch else f" {value}"
                raise InvalidArgument(f"--{flag.name}{shown}: {flag.why}", hint=flag.instead)
    if not o["disable_content_trust"]:
        raise InvalidArgument(
            "--disable-content-trust=false: there is no content trust of Docker's kind",
            hint="signatures are asked for by hyperd's `image_policy`",
        )
