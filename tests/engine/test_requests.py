# SPDX-License-Identifier: Apache-2.0
"""What may be asked of a container and of a pod: what it gets then, and what is refused and leaves nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hypercontainer.errors import HyperError, InvalidArgument, NotFound
from hypercontainer.images.layout import Layout
from hypercontainer.model.network import NetworkRequest
from hypercontainer.model.pods import InterfaceSpec, PodPlan, PodSpec, VolumeRequest
from hypercontainer.model.specs import (
    MEMORY_DEFAULT,
    ContainerSpec,
    Dependency,
    HealthCheck,
    HostEntry,
    Mount,
    PortMapping,
    Resources,
    RestartPolicy,
    SecretMount,
    Ulimit,
)
from hypercontainer.podfile.document import Podfile

from .scenes import plan, spec
from .stage import IMAGE, Stage, put_image

WRONG: dict[str, dict[str, Any]] = {
    "little memory": {"resources": Resources(memory=1)},
    "more memory than there is": {"resources": Resources(memory=1 << 50)},
    "more CPUs than there are": {"resources": Resources(cpus=10_000)},
    "hardly a CPU": {"resources": Resources(cpus=0.001)},
    "a host name with a space": {"hostname": "a b"},
    "a variable without a name": {"env": ["=x"]},
    "an unknown limit": {"ulimits": [Ulimit(name="such", soft=1, hard=1)]},
    "a soft limit above the hard one": {"ulimits": [Ulimit(name="nofile", soft=2, hard=1)]},
    "a sysctl that is none": {"sysctls": {"a b": "1"}},
    "a relative directory": {"workdir": "x"},
    "an unknown capability": {"cap_add": ["SUCH"]},
    "an unknown signal": {"stop_signal": "SUCH"},
    "a mount at the root": {"mounts": [Mount(target="/", type="tmpfs")]},
    "two things at one place": {"mounts": [Mount(target="/x", type="tmpfs"), Mount(target="/x/", type="tmpfs")]},
    "a sub-path that leaves": {"mounts": [Mount(target="/x", source="v", sub_path="../y")]},
    "a check of nothing": {"health": HealthCheck()},
    "removed and restarted": {"auto_remove": True, "restart": RestartPolicy(name="always")},
    "root where none may be": {"non_root": True},
    "a user without a number where none may be root": {"non_root": True, "user": "me"},
    "an address that is not known": {"env": ["X="], "env_fields": {"X": "podIP"}, "network": "cni:such"},
    "a network that is not there": {"network": "such"},
    "two addresses in a network": {"networks": [NetworkRequest(name="user"), NetworkRequest(name="user")]},
    "an unknown driver": {"driver": "such"},
    "a pod that is not there": {"pod": "such"},
    "a base that is not there": {"base": "such"},
    "a secret that is not there": {"secrets": [SecretMount(secret="such", target="/x")]},
    "a name that is no name": {"name": "-"},
    "an image for another processor": {"platform": "linux/s390x"},
    "a path of this host that is not absolute": {"mounts": [Mount(target="/x", source="x", type="bind")]},
    "a path of this host that is not there": {"mounts": [Mount(target="/x", source="/nothing/such", type="bind")]},
    "a network twice": {"networks": [NetworkRequest(name="default"), NetworkRequest(name="default")]},
    "this host where it is not reached": {"hosts": [HostEntry(ip="host-gateway", names=["h"])], "network": "user"},
    "no program": {"entrypoint": [""], "command": []},
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_refused_leaves_nothing(act: Any, what: str) -> None:
    async def scenario(s: Stage) -> None:
        with pytest.raises(HyperError):
            await s.call(s.engine.containers.create(ContainerSpec(image=IMAGE, **({"name": "a"} | WRONG[what]))))
        assert s.engine.registry.containers() == [] and s.engine.registry.pods() == []
        await s.create("a")  # its name is free

    act(scenario)


@pytest.mark.parametrize(
    "wrong",
    [
        plan(spec("a"), spec("a")),
        plan(spec("a"), vcpus=10_000),
        plan(spec("a"), memory=1 << 50),
        plan(spec("a"), hostname="a b"),
        plan(ContainerSpec(image="docker.io/library/such", name="a")),
        plan(spec("a", mounts=[Mount(target="/x", source="such", type="bind")])),
        plan(spec("a"), memory=1 << 20),
        plan(spec("a"), secrets={"key": b"x" * (2 << 20)}),
        plan(spec("a", depends_on=[Dependency(container="b")])),
        plan(spec("a", depends_on=[Dependency(container="b")]), spec("b", depends_on=[Dependency(container="a")])),
        plan(spec("a"), volumes=[VolumeRequest(name="v", source="file://etc/passwd")]),
        plan(spec("a"), volumes=[VolumeRequest(name="v", source="/etc", format="raw")]),
        plan(spec("a"), volumes=[VolumeRequest(name="v", source="relative", format="qcow2")]),
        plan(spec("a"), spec=PodSpec(interfaces=[InterfaceSpec(bridge="br0")])),
        plan(
            spec("a"),
            spec=PodSpec(
                interfaces=[
                    InterfaceSpec(bridge="br0", addresses=["192.0.2.2/24"], gateway="192.0.2.1"),
                    InterfaceSpec(bridge="br1", addresses=["192.0.3.2/24"], gateway="192.0.3.1"),
                ]
            ),
        ),
    ],
)
def test_a_pod_that_cannot_be_is_not_there_in_part(act: Any, wrong: PodPlan) -> None:
    async def scenario(s: Stage) -> None:
        with pytest.raises(HyperError):
            await s.call(s.engine.pods.create(wrong))
        assert s.engine.registry.containers() == [] and s.engine.registry.pods() == []

    act(scenario)


def main_of(s: Stage, name: str) -> Any:
    container = s.engine.registry.container(name)
    return next(p for p in s.guest(s.machine(name)).alive(container.id[:12]) if p.main)


def test_variables_are_filled_in(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run(
            "a",
            "sleep",
            "$(SECONDS)",
            env=["SECONDS=100", "TWICE=$(SECONDS)$(SECONDS)", "DOLLAR=$$(SECONDS)", "OTHER=$(SUCH)", "IP="],
            env_fields={"IP": "podIP"},
            expand=True,
        )
        process = main_of(s, "a")
        assert process.args == ("sleep", "100")
        wanted = {"TWICE": "100100", "DOLLAR": "$(SECONDS)", "OTHER": "$(SUCH)"}
        assert {k: process.env[k] for k in wanted} == wanted and process.env["IP"].startswith("10.")
        await s.run("b", env=["IP="], env_fields={"IP": "podIP"}, network="none")
        assert main_of(s, "b").env["IP"] == "127.0.0.1"

    act(scenario)


def test_a_container_has_all_that_it_asks_for(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run(
            "a",
            user=":5",
            hostname="h",
            tty=True,
            read_only=True,
            resources=Resources(cpus=0.5, memory=64 << 20, pids=10),
            ulimits=[Ulimit(name="nofile", soft=10, hard=-1)],
            sysctls={"net.core.somaxconn": "100"},
            cap_add=["NET_ADMIN"],
            cap_drop=["CHOWN"],
            dns=["192.0.2.1"],
            dns_search=["example.org"],
            hosts=[HostEntry(ip="192.0.2.2", names=["x"])],
            aliases=["y"],
            publish_all=True,
            expose=["80/tcp"],
            run_init=True,
            non_root=False,
            entrypoint=["sleep", "50"],
            shm_size=1 << 20,
        )
        files = s.guest(s.machine("a")).containers[s.engine.registry.container("a").id[:12]].files
        assert b"192.0.2.1" in files["/etc/resolv.conf"] and b"192.0.2.2\tx" in files["/etc/hosts"]
        assert files["/etc/hostname"] == b"h\n"
        assert [p.container_port for p in s.engine.registry.container("a").ports] == [80]
        await s.run("b", privileged=True, user="7", non_root=True, isolation="fresh", stop_signal="INT")
        assert s.engine.registry.container("b").process.stop_signal == 2

    act(scenario)


def test_a_container_begins_with_the_files_of_another(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.create("a")
        await s.run("b", base="a")
        assert s.status("b") == "running"
        with pytest.raises(HyperError):  # it runs: its disk is in use
            await s.create("c", base="b")

    act(scenario)


def document(tmp_path: Path, uri: str) -> Podfile:
    described = {
        "id": "pod",
        "containers": [
            {"name": "a", "image": "box", "files": [{"path": "/x", "filename": "f"}], "volumes": []},
        ],
        "resource": {"vcpu": 1, "memory": 64},
        "files": [{"name": "f", "encoding": "raw", "uri": uri}],
        "volumes": [],
    }
    return msgspec.json.decode(json.dumps(described).encode(), type=Podfile)


def test_a_podfile_becomes_a_pod(act: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"from here")

    async def scenario(s: Stage) -> None:
        made = await s.call(s.engine.create_pod(document(tmp_path, f"file://{tmp_path}/f")))
        assert [c.name for c in made.containers] == ["a"]
        await s.call(s.engine.pods.start("pod"))
        files = s.guest(s.machine("a")).containers[made.containers[0].id[:12]].files
        assert files["/x"] == b"from here"

    act(scenario)


@pytest.mark.parametrize(
    ("uri", "error"),
    [("file:///nothing/such", NotFound), ("file:///dev/null", InvalidArgument), ("ftp://x/y", InvalidArgument)],
)
def test_a_podfile_whose_file_is_not_there_leaves_nothing(act: Any, tmp_path: Path, uri: str, error: Any) -> None:
    async def scenario(s: Stage) -> None:
        with pytest.raises(error):
            await s.call(s.engine.create_pod(document(tmp_path, uri)))
        assert s.engine.registry.pods() == []

    act(scenario)


def test_a_pod_is_killed_and_goes_on_alone_where_it_shall(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan(spec("a"), spec=PodSpec(exit_policy="continue"))))
        await s.call(s.engine.pods.start("pod"))
        await s.call(s.engine.pods.kill("pod", "KILL"))
        assert await s.call(s.engine.containers.wait("a")) == 137
        assert len(s.host.machines) == 1  # its machine stays
        await s.call(s.engine.containers.start("a"))
        assert s.status("a") == "running"
        await s.call(s.engine.pods.stop("pod", 0))
        assert not s.host.machines

    act(scenario)


def test_a_daemon_that_is_told_to_end_at_once_ends_all_machines(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", ports=[PortMapping(container_port=80)])
        await s.call(s.engine.kill_machines())
        s.kill()
        assert not s.host.machines
        await s.open()
        assert s.status("a") == "exited"

    act(scenario)


def test_a_pod_without_containers_is_a_machine(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        made = await s.call(s.engine.pods.create(plan(spec=PodSpec(exit_policy="continue"))))
        assert made.memory == MEMORY_DEFAULT
        await s.call(s.engine.pods.start("pod"))
        assert len(s.host.machines) == 1 and s.engine.registry.pod("pod").status == "running"
        await s.run("late", pod="pod")
        assert len(s.host.machines) == 1
        assert await s.call(s.engine.pods.stop("pod", 0)) and not s.host.machines

    act(scenario)


def test_what_an_image_says_counts_where_nothing_else_is_said(act: Any) -> None:
    config = {
        "Cmd": ["sleep", "100000"], "Volumes": {"/data/": {}, "/mine": {}}, "StopSignal": "INT",
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 10**9, "Retries": 1},
    }  # fmt: skip

    async def scenario(s: Stage) -> None:
        layout = Layout(s.paths.images)
        put_image(layout, **config)
        await s.run("a", mounts=[Mount(target="/mine", source="vol")])
        container = s.engine.registry.container("a")
        mine, data = container.mounts
        assert [(m.mount.target, m.anonymous) for m in (mine, data)] == [("/mine", False), ("/data/", True)]
        assert mine.volume == "vol" and s.engine.registry.volume(data.volume).anonymous
        assert container.process.stop_signal == 2
        await asyncio.sleep(5)
        health = s.engine.registry.container("a").state.health
        assert health and health.status == "healthy"
        put_image(layout, Cmd=["sleep"], Healthcheck={"Test": ["CMD-SHELL", "exit 1"], "StartPeriod": "soon"})
        await s.create("b")
        health_check = s.engine.registry.container("b").health
        assert health_check and health_check.command == ["/bin/sh", "-c", "exit 1"] and health_check.start_period == 0
        for nothing in ({"Test": ["NONE"]}, "such", {"Test": ["CMD", 1]}):
            put_image(layout, Cmd=["true"], Healthcheck=nothing)
            id_ = await s.create("")
            assert s.engine.registry.container(id_).health is None
        put_image(layout)
        with pytest.raises(InvalidArgument, match="no command specified, and image .* has none"):
            await s.call(s.engine.containers.create(ContainerSpec(image=IMAGE)))

    act(scenario, own_images=True)
