# SPDX-License-Identifier: Apache-2.0
"""docker-py, Docker's library for Python: containers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from .conftest import Daemon

pytestmark = pytest.mark.e2e


@pytest.fixture
def client(hyper: Daemon) -> Iterator[Any]:
    made = docker.DockerClient(base_url=f"unix://{hyper.run}/docker.sock", version="auto", timeout=60)
    yield made
    made.close()


def test_a_container_with_all_that_the_library_can_ask_for(client: Any, tmp_path: Path) -> None:
    """What is asked comes back as the library reads it."""
    volume = client.volumes.create("pydata", driver_opts={"type": "directory"})
    made = client.containers.create(
        "busybox", ["sleep", "1000"], name="py", environment={"A": "1"}, labels={"k": "v"}, hostname="h",
        domainname="example.org", working_dir="/tmp", user="1:2", tty=True, stdin_open=True, ports={"80/tcp": None},
        volumes={"pydata": {"bind": "/data", "mode": "ro"}, str(tmp_path): {"bind": "/host"}}, tmpfs={"/t": "size=1m"},
        mem_limit="64m", nano_cpus=500_000_000, pids_limit=50, shm_size="10m", read_only=True, init=True,
        cap_add=["NET_ADMIN"], cap_drop=["CHOWN"], security_opt=["no-new-privileges"], dns=["192.0.2.1"],
        extra_hosts={"far": "192.0.2.2"}, group_add=["5"], sysctls={"net.core.somaxconn": "7"}, stop_signal="SIGINT",
        ulimits=[docker.types.Ulimit(name="nofile", soft=10, hard=20)],
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 2},
        log_config=docker.types.LogConfig(type="json-file", config={"max-size": "1m"}),
        healthcheck={"test": ["CMD", "true"], "interval": 10**9, "retries": 2},
    )  # fmt: skip
    assert made.status == "created" and made.name == "py" and made.labels == {"k": "v"}
    config, host = made.attrs["Config"], made.attrs["HostConfig"]
    assert (config["Hostname"], config["Domainname"], config["User"], config["Tty"]) == (
        "h",
        "example.org",
        "1:2",
        True,
    )
    assert (config["OpenStdin"], config["WorkingDir"], config["StopSignal"]) == (True, "/tmp", "SIGINT")
    assert config["Healthcheck"]["Interval"] == 10**9 and config["Healthcheck"]["Retries"] == 2
    assert host["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": ""}]}
    assert sorted(host["Binds"]) == sorted(["pydata:/data:ro", f"{tmp_path}:/host:rw"])
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 << 20, 500_000_000, 50)
    assert (host["ShmSize"], host["ReadonlyRootfs"], host["Init"]) == (10 << 20, True, True)
    assert (host["CapAdd"], host["CapDrop"], host["GroupAdd"]) == (["NET_ADMIN"], ["CHOWN"], ["5"])
    assert host["ExtraHosts"] == ["far:192.0.2.2"] and host["Sysctls"] == {"net.core.somaxconn": "7"}
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 10, "Hard": 20}]
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m"}}
    assert {m["Destination"]: m["RW"] for m in made.attrs["Mounts"] if m["Type"] != "tmpfs"} == {
        "/data": False, "/host": True,
    }  # fmt: skip
    made.remove(v=True)
    volume.remove()


def test_a_life(client: Any) -> None:
    box = client.containers.run("busybox", ["sleep", "1000"], name="life", detach=True, ports={"80/tcp": None})
    assert [c.name for c in client.containers.list()] == ["life"] and box.status == "created"
    box.reload()
    assert box.status == "running" and box.image.tags == ["busybox:latest"]
    ((binding,),) = box.ports.values()
    assert int(binding["HostPort"]) > 0
    assert client.containers.get(box.short_id).id == box.id
    assert box.top()["Processes"][0][-1] == "sleep 1000"
    box.rename("other")
    box.update(mem_limit="100m", restart_policy={"Name": "always"})
    box.pause()
    box.unpause()
    box.reload()
    assert (box.name, box.attrs["HostConfig"]["Memory"]) == ("other", 100 << 20)
    assert client.containers.list(filters={"name": "other", "status": "running"}) == [box]
    with pytest.raises(docker.errors.APIError, match="stop the container before removing") as refused:
        box.remove()
    assert refused.value.status_code == 409
    with pytest.raises(docker.errors.APIError, match="already in use by container"):
        client.containers.create("busybox", name="other")
    box.kill()
    assert box.wait()["StatusCode"] == 137
    assert client.containers.list() == [] and client.containers.list(all=True) == [box]
    assert client.containers.prune()["ContainersDeleted"] == [box.id]
    with pytest.raises(docker.errors.NotFound, match="No such container"):
        client.containers.get("other")
    with pytest.raises(docker.errors.ImageNotFound, match="No such image"):
        client.containers.create("nope")


def test_files_and_ends(client: Any) -> None:
    box = client.containers.run("busybox", ["sleep", "1000"], detach=True)
    assert box.exec_run(["touch", "/new"]).exit_code == 0
    assert box.diff() == [{"Path": "/new", "Kind": 1}]
    assert b"new" in b"".join(box.export())
    image = box.commit(repository="pymade", tag="1", message="m", changes='CMD ["true"]')
    assert image.tags == ["pymade:1"] and image.attrs["Config"]["Cmd"] == ["true"]
    box.remove(force=True)
    assert client.containers.run("pymade:1", remove=True) == b""
    client.images.remove("pymade:1")
    with pytest.raises(docker.errors.APIError, match="executable file not found"):
        client.containers.run("busybox", "nosuch")
    (left,) = client.containers.list(all=True)
    left.remove()
