# SPDX-License-Identifier: Apache-2.0
"""Processor architectures, by OCI's names: https://github.com/opencontainers/image-spec/blob/main/image-index.md"""

from __future__ import annotations

import platform

from ..errors import InvalidArgument

# Those that virtual machines have, and what `uname -m` says there.
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
# Of images, and the machine that runs them: 32-bit programs run on a 64-bit x86.
_RUN_BY = {**{name: name for name in MACHINES}, "386": "amd64"}
PLATFORMS = tuple(f"linux/{name}" for name in _RUN_BY)  # of images that can be run


def host() -> str:
    """Of this host."""
    names = {machine: name for name, machine in MACHINES.items()}
    return names.get(platform.machine(), platform.machine())


def is_foreign(architecture: str) -> bool:
    """Whether a machine of it is emulated here; "" is the host's own."""
    return architecture not in ("", host())


def machine_for(os: str, architecture: str, variant: str = "") -> str:
    """The architecture of a machine that runs an image; the host's for one that does not say.

    :raise InvalidArgument: there is no such machine.
    """
    if not architecture:
        return host()
    if os in ("", "linux") and (found := _RUN_BY.get(architecture)):
        return found
    raise InvalidArgument(
        f"images for {'/'.join(filter(None, (os, architecture, variant)))} cannot be run",
        hint=f"virtual machines run images for {', '.join(PLATFORMS)}",
    )
