# SPDX-License-Identifier: Apache-2.0
"""What Xen's driver does with a tap and an interface of netback's: with a veth in the place of that."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.hypervisor.driver import TapNetwork
from hypercontainer.hypervisor.xen import vifs
from hypercontainer.network import tap

from .conftest import MAC, _in_network_of, _network_namespace


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made = _network_namespace()
    monkeypatch.setattr(vifs, "_FIRST", "/proc/self/ns/net")
    try:
        with _in_network_of(made):
            yield
    finally:
        os.close(made)


def ip(*args: str) -> str:
    return subprocess.run(["ip", *args], capture_output=True, text=True, check=True).stdout


def link(name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(ip("-j", "-d", "link", "show", name))
    return found[0]


async def test_it_takes_the_taps_name_and_its_place(
    namespace: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xenstore-write").write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/written\n')
    (tmp_path / "xenstore-write").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    ip("link", "add", "br9", "type", "bridge")
    ip("link", "add", "vif7.0", "type", "veth", "peer", "name", "guest")
    fd = tap.create_tap("ht9")
    try:
        await tap.join("ht9", "br9", 1400)
        before = link("ht9")
        await vifs.take_over(7, {0: TapNetwork(MAC, fd, "ht9")})
        after = link("ht9")
        assert after["linkinfo"]["info_kind"] == "veth" and after["ifindex"] != before["ifindex"]
        assert (after["master"], after["mtu"]) == (before["master"], before["mtu"]) == ("br9", 1400)
        assert after["linkinfo"]["info_slave_data"]["hairpin"] and "UP" in after["flags"]
        assert os.readlink(f"/proc/self/fd/{fd}") == os.devnull
        assert (tmp_path / "written").read_text() == "/local/domain/0/backend/vif/7/0/hotplug-status connected\n"
    finally:
        os.close(fd)
