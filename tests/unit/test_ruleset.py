# SPDX-License-Identifier: Apache-2.0
"""The rules of pods that come and go, in the kernel of a network namespace."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from hypercontainer.errors import Unavailable
from hypercontainer.model.network import Egress
from hypercontainer.model.specs import PortMapping
from hypercontainer.network import addresses, nftables
from hypercontainer.network.network_rules import Bridge
from hypercontainer.network.ruleset import Nic, Published, Ruleset

BRIDGES = (
    Bridge("hyper0", ("10.0.0.0/16", "fd00::/64"), gateways=("10.0.0.1", "fd00::1")),
    Bridge("hy-a", ("10.1.0.0/24",), internal=True, gateways=("10.1.0.1",)),
)
needs_root = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft"), reason="it needs root and nft")


def pods(numbers: set[int]) -> Ruleset:
    """One NIC each, some with lists, rates and ports."""
    nics, ports = [], []
    for n in sorted(numbers):
        mac = f"0a:00:00:00:{n >> 8:02x}:{n & 255:02x}"
        ip, ip6 = f"10.0.{n >> 8}.{n & 255}", f"fd00::{n:x}"
        allow = (Egress(cidr=f"10.{n & 255}.0.0/16", port=80), Egress(cidr="fd09::/16")) if n % 3 == 0 else ()
        nics.append(Nic(f"ht{n:010d}0", mac, ip, ip6, addresses.link_local(mac), allow, 8_000_000 if n % 4 == 0 else 0))
        if n % 2:
            ports.append(Published(PortMapping(container_port=80, host_port=8000 + n), ip, ip6))
            ports.append(Published(PortMapping(container_port=80, host_port=100 + n % 4, host_ip="127.0.0.1"), ip, ip6))
    return Ruleset(BRIDGES, tuple(nics), tuple(ports))


def kernel(*texts: str) -> str:
    """What the kernel of a new namespace has after these transactions."""
    script = """
        import asyncio, json, subprocess, sys
        from hypercontainer.network import nftables
        for text in json.load(sys.stdin): asyncio.run(nftables.apply(text))
        print(subprocess.run(["nft", "-s", "list", "ruleset"], capture_output=True, text=True, check=True).stdout)
    """
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", textwrap.dedent(script)],
        input=json.dumps(texts), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def sorted_words(listing: str) -> list[str]:
    """Sets and chains are listed in the order in which they were made."""
    return sorted(
        word.strip(" ,") for line in listing.replace("elements = {", "\n").splitlines() for word in line.split(",")
    )


@needs_root
def test_changes_lead_where_the_whole_does() -> None:
    chance = random.Random(7)
    up: set[int] = {1, 2, 3}
    before = pods(up)
    texts = [before.text()]
    for _ in range(20):
        up = up ^ set(chance.sample(range(2, 40), 6))
        after = pods(up)
        texts.append(after.change(before))
        assert "delete table" not in texts[-1]
        before = after
    assert sorted_words(kernel(*texts)) == sorted_words(kernel(before.text()))


@needs_root
def test_the_last_pod_leaves_nothing() -> None:
    """Of its own; and without networks there are no tables."""
    assert kernel(pods({3, 4, 5}).text(), pods(set()).change(pods({3, 4, 5}))) == kernel(pods(set()).text())
    assert kernel(pods({3}).text(), Ruleset().change(pods({3}))).strip() == ""


def test_a_change_is_as_small_as_what_changes() -> None:
    many = set(range(2, 1002))
    change = pods(many | {1002}).change(pods(many))
    assert 0 < len(change) < 1000 and pods(many).change(pods(many)) == ""


async def test_what_nft_refuses_is_said() -> None:
    with pytest.raises(Unavailable, match="nftables refused the rules"):
        await nftables.apply("add element inet no-such-table of-ours { 1 }\n")


async def test_the_program_does_where_there_is_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`nft` here is one that keeps what it is told."""
    program = tmp_path / "nft"
    program.write_text(f"#!/bin/sh\ncat > {tmp_path}/told\n[ ! -e {tmp_path}/fail ] || {{ echo why >&2; exit 1; }}\n")
    program.chmod(0o755)
    monkeypatch.setattr(nftables, "_library", lambda: None)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    await nftables.apply("some words\n")
    assert (tmp_path / "told").read_text() == "some words\n"
    (tmp_path / "fail").touch()
    with pytest.raises(Unavailable, match="why"):
        await nftables.apply("others\n")


def test_a_change_tells_of_what_differs_however_much_there_is() -> None:
    before = pods(set(range(2, 500)))
    after = replace(before, nics=before.nics[1:])
    said = after.change(before)
    gone, kept = before.nics[0].tap, before.nics[1].tap
    assert gone in said and kept not in said and len(said.splitlines()) < 20 and "add element" not in said
    assert gone in before.change(after) and kept not in before.change(after)
    assert before.change(pods(set(range(2, 500)))) == ""  # of the same, that are other objects
