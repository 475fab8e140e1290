# SPDX-License-Identifier: Apache-2.0
"""Machines of another architecture than this host's: another of QEMU's programs, which emulates their processors."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from ...errors import Unavailable
from ...model import architectures
from ..ask import ask
from ..driver import Probe
from .machine_types import PROCESSORS, MachineType, Processor

ACCELERATOR = "tcg"


class Emulator:
    """The program for one architecture, looked for in PATH when it is needed."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        self._versions: dict[Path, str] = {}

    @property
    def machine_type(self) -> MachineType:
        """That of its machines."""
        return self._processor.types[0]

    async def probe(self) -> Probe:
        """Whether it is there."""
        reason = f"emulated: this host is {architectures.host()}"
        try:
            version = await self.version()
        except Unavailable as error:
            return Probe(ACCELERATOR, reason, error.message, error.hint or "")
        return Probe(ACCELERATOR, f"QEMU {version}, {reason}" if version else reason)

    async def version(self) -> str:
        """What it says of itself, "" where it does not.

        :raise Unavailable: it is not installed.
        """
        return await asyncio.to_thread(self._version, Path(self.binary()))

    def _version(self, binary: Path) -> str:
        if not self._versions.get(binary):
            self._versions[binary] = ask(binary, "--version").partition("version ")[2].split("\n")[0].split(" ")[0]
        return self._versions[binary]

    def binary(self) -> str:
        """Its path.

        :raise Unavailable: it is not installed.
        """
        if found := shutil.which(self._processor.binary):
            return found
        name, package = self._processor.binary, self._processor.package
        raise Unavailable(f"{name} is not installed", hint=f"install the package {package}")


def emulators() -> dict[str, Emulator]:
    """By architecture, without this host's own."""
    return {name: Emulator(p) for name, p in PROCESSORS.items() if architectures.is_foreign(name)}
