# SPDX-License-Identifier: Apache-2.0
"""python-on-whales, which reads what Docker's own client prints into checked models."""

from __future__ import annotations

from pathlib import Path

import pytest
import python_on_whales as whales

from .conftest import Daemon

pytestmark = pytest.mark.e2e


def test_a_life(hyper: Daemon) -> None:
    docker = whales.DockerClient(host=f"unix://{hyper.run}/docker.sock")
    box = docker.run(
        "busybox", ["sleep", "1000"], name="whale", detach=True, publish=[(0, 80)], tmpfs=["/t:uid=5,gid=6,mode=700"],
        labels={"a": "b"}, volumes=[("whales", "/data", "ro")],
    )  # fmt: skip
    assert (box.name, box.state.status, box.config.labels) == ("whale", "running", {"a": "b"})
    assert box.state.started_at.year >= 2024 and box.created <= box.state.started_at
    ((binding,),) = box.network_settings.ports.values()
    assert int(binding["HostPort"]) > 0
    assert {(m.type, m.destination): m.rw for m in box.mounts} == {("volume", "/data"): False}
    assert box.host_config.tmpfs == {Path("/t"): "uid=5,gid=6,mode=700"}
    assert docker.ps() == docker.container.list(all=True, filters=[("name", "whale")]) == [box]
    owner = docker.execute(box, ["stat", "-c", "%u:%g %a", "/t"])
    assert owner == "5:6 700"
    box.pause()
    box.reload()
    assert box.state.paused
    box.unpause()
    docker.container.update(box, memory="100m")
    box.rename("other")
    box.reload()
    assert (box.name, box.host_config.memory) == ("other", 100 << 20)
    box.kill()
    assert docker.wait(box) == 137
    box.remove(volumes=True)
    docker.volume.remove("whales")
    assert not docker.container.exists("other")
