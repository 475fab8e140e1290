# SPDX-License-Identifier: Apache-2.0
"""What can be seen of a tap without asking the kernel's netlink."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hypercontainer.network import tap

LOOPBACK = socket.if_nametoindex("lo")
WHOLE = {"ifindex": f"{LOOPBACK}", "master/ifindex": f"{LOOPBACK}", "flags": "0x1003", "brport/hairpin_mode": "1"}


@pytest.mark.parametrize(
    ("change", "joined"),
    [
        ({}, True),
        ({"ifindex": f"{LOOPBACK + 1}"}, False),  # an interface of this name in another namespace
        ({"master/ifindex": f"{LOOPBACK + 1}"}, False),
        ({"master/ifindex": None}, False),
        ({"flags": "0x1002"}, False),
        ({"brport/hairpin_mode": "0"}, False),
        ({"brport/hairpin_mode": None}, False),
        ({"flags": "up"}, False),
    ],
)
def test_whether_it_is_joined(tmp_path: Path, change: dict[str, str | None], joined: bool) -> None:
    for name, text in {**WHOLE, **change}.items():
        path = tmp_path / "lo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_text(f"{text}\n")
    assert tap.is_joined("lo", "lo", tmp_path) is joined
    assert not tap.is_joined("lo", "hy-none", tmp_path)
    assert not tap.is_joined("eth-none", "lo", tmp_path)
