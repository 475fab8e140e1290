# SPDX-License-Identifier: Apache-2.0
"""What a user names becomes one value of QEMU's options, whatever is in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypercontainer.hypervisor.driver import Disk, TapNetwork, VirtioFs
from hypercontainer.hypervisor.qemu import command

from .test_hypervisor import CONFIG, FDS

EVIL = "x,netdev=other,romfile=/etc/passwd"


def parsed(option: str) -> list[str]:
    """An option string as QEMU reads it (util/qemu-option.c): a doubled comma is one in a value."""
    return [part.replace("\0", ",") for part in option.replace(",,", "\0").split(",")]


def test_no_value_becomes_another_option() -> None:
    config = replace(
        CONFIG, name=EVIL, disks=(Disk(EVIL, Path("/i"), read_only=True),), networks=(TapNetwork(EVIL, 3),),
        share=VirtioFs(EVIL, 21),
    )  # fmt: skip
    line = command.command_line("qemu", config, "tcg", FDS)
    told = [part for option in line if not option.startswith("{") for part in parsed(option)]
    assert not [part for part in told if part.startswith(("romfile", "netdev=other"))]
    assert f"mac={EVIL}" in told and f"serial={EVIL}" in told and f"tag={EVIL}" in told
