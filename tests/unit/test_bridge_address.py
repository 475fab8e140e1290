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
BEGUN = {"new": "", "of an earlier daemon": _EARLIER}
MAKE = """
import asyncio
from hypercontainer.model.network import Network
from hypercontainer.network import links
made = Network(id="a", name="a", bridge="hy-a", subnet="10.9.0.0/24", gateway="10.9.0.1", created_at=0)
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
