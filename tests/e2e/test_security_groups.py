# SPDX-License-Identifier: Apache-2.0
"""Security groups: real pods, real traffic, rules that change while they run."""

from __future__ import annotations

import pytest

from .test_networks import SERVE, SLEEP, World, shared_world, world

__all__ = ["shared_world", "world"]
GET = "timeout 3 wget -q -O - http://{}:{}/ 2>&1 | grep -x web || echo none"


@pytest.mark.slow
def test_pods_of_groups(world: World) -> None:
    ctl = world.daemon.ctl
    ctl("network", "create", "sg", "--ipv6")
    ctl("sg", "create", "clients")
    ctl("sg", "create", "web", "--rule", "in tcp 80 @clients")
    inside = "--network", "sg", "--security-group"
    ctl("run", "-d", "--name", "web", "--hostname", "web", *inside, "web", "-p", "8099:80", "busybox", *SERVE)
    label = "hypercontainer.security-group=clients"  # Docker's client has no flag for it
    world.daemon.docker("run", "-d", "--name", "friend", "--network", "sg", "--label", label, "busybox", *SLEEP)
    ctl("run", "-d", "--name", "other", "--network", "sg", "busybox", *SLEEP)
    four, six = world.addresses("sg", "web")

    def reaches(pod: str, address: str = four, port: int = 80) -> bool:
        return world.sh(pod, GET.format(address, port)) == "web"

    assert reaches("friend") and reaches("friend", f"[{six}]")
    assert not reaches("other") and not reaches("other", f"[{six}]")
    assert "web" not in world.fetch("http://127.0.0.1:8099/") and "1 packets received" not in world.sh(
        "friend", f"ping -c 1 -W 1 {four}"
    )
    ctl("sg", "attach", "clients", "other")  # by members, without a change of rules
    assert reaches("other")
    ctl("sg", "detach", "clients", "other")
    assert not reaches("other")
    ctl("sg", "update", "web", "--add-rule", "in tcp 80 0.0.0.0/0", "--add-rule", "in icmp")
    assert reaches("other") and not reaches("other", f"[{six}]")
    assert "web" in world.fetch("http://127.0.0.1:8099/")
    assert "1 packets received" in world.sh("other", f"ping -c 1 -W 5 {four}")
    ctl("sg", "update", "clients", "--rule", "out udp 53")
    assert not reaches("friend") and reaches("other")
    for args, says in (
        (("rm", "web"), "pod web is in security group web"),
        (("rm", "clients"), "pod friend is in security group clients"),
        (("create", "web"), "there is a security group web already"),
        (("attach", "none", "web"), "no such security group: none"),
    ):
        done = ctl("sg", *args, check=False)
        assert done.returncode and says in done.stderr, done.stderr
    world.host("nft", "delete", "table", "inet", "hyper")
    ctl("sg", "detach", "web", "web")
    assert reaches("other", f"[{six}]")
    ctl("rm", "-f", "web", "friend", "other")
    ctl("sg", "rm", "web", "clients")
    assert "group_" not in world.rules().replace("group_in_", "").replace("group_out_", "")
    ctl("network", "rm", "sg")
