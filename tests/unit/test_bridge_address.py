# SPDX-License-Identifier: Apache-2.0
"""A bridge keeps its address while NICs come and go: guests remember it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_EARLIER = """
ip link add hy-a type bridge
ip link add old type veth peer name gone
ip link set dev old address 0e:00:00:00:00:01 master hy-a
"""
_UP = 1  # IFF_UP of linux/if.h
BEGUN = {"new": "", "of an earlier daemon": _EARLIER}
# Of what a dead daemon had begun.
_HALF = {
    "there": "ip link add hy-a type bridge",
    "with one address": "ip link add hy-a type bridge\nip addr add 10.9.0.1/24 dev hy-a",
    "whole": '"$0" -c "$1"',
}
MAKE = """
import asyncio
from hypercontainer.model.network import Network
from hypercontainer.network import links
made = Network(id="a", name="a", bridge="hy-a", subnet="10.9.0.0/24", gateway="10.9.0.1", created_at=0,
               subnet6="fd09::/64", gateway6="fd09::1")
asyncio.run(links.make_bridge(made))
"""
COMES = "ip link add nic type veth peer name far && ip link set dev nic address 02:00:00:00:00:01 master hy-a"
ADDRESS = "cat /sys/class/net/hy-a/address"


@pytest.mark.skipif(os.geteuid() != 0, reason="makes links")
@pytest.mark.parametrize("begun", BEGUN.values(), ids=BEGUN)
def test_the_address_of_a_bridge_does_not_change(begun: str) -> None:
    script = f'set -e\nmount -t sysfs none /sys\n{begun}\n"$0" -c "$1"\n{ADDRESS}\n{COMES}\n{ADDRESS}'
    command = ["unshare", "--net", "--mount", "sh", "-c", script, sys.executable, MAKE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.split()
    assert before == after


@pytest.mark.skipif(os.geteuid() != 0, reason="makes links")
@pytest.mark.parametrize("begun", _HALF.values(), ids=_HALF)
def test_what_is_half_made_is_finished(begun: str) -> None:
    """A name server listens on its addresses then; else no later hyperd would start."""
    seen = "cat /sys/class/net/hy-a/flags; ip -br addr show dev hy-a"
    script = f'set -e\nmount -t sysfs none /sys\n{begun}\n"$0" -c "$1"\n{seen}'
    command = ["unshare", "--net", "--mount", "sh", "-c", script, sys.executable, MAKE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    flags, *words = done.stdout.split()
    assert int(flags, 16) & _UP and {"10.9.0.1/24", "fd09::1/64"} <= set(words)
