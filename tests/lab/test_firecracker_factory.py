# SPDX-License-Identifier: Apache-2.0
"""Firecracker's machines from templates and from the pool: what tests/vm asks of QEMU's."""

from __future__ import annotations

from hypercontainer.model.specs import Mount
from tests.vm.conftest import Lab
from tests.vm.test_factory import (
    fresh_ones,
    started,
    test_a_container_of_a_clone_outlives_the_daemon,
    test_a_published_port_of_a_machine_that_waited,
    test_two_machines_have_nothing_of_their_own_in_common,
    until,
)
from tests.vm.test_shares import test_directories_come_to_a_machine_that_waited

__all__ = [
    "fresh_ones",
    "test_a_container_of_a_clone_outlives_the_daemon",
    "test_a_published_port_of_a_machine_that_waited",
    "test_directories_come_to_a_machine_that_waited",
    "test_two_machines_have_nothing_of_their_own_in_common",
]


async def test_a_volume_of_a_machine_that_waited(lab: Lab) -> None:
    """Its disk comes behind a drive of the machine, and is the same one for the next."""
    mounts = [Mount(target="/data", source="kept")]
    for source, expected in (("cold", ""), ("pool", "kept\n"), ("pool", "kept\n")):
        before = started(lab)[source]
        assert (await lab.sh("cat /data/file; echo kept >/data/file", mounts=mounts)).out == expected
        assert started(lab)[source] == before + 1, "it did not come from where it should"
        await until(lambda: any(n for n, _ in lab.engine.factory.pool.counts().values()), "a machine that waits")
