# SPDX-License-Identifier: Apache-2.0
"""CRI: containers in sandboxes, and what runs in them; over a socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from hypercontainer.cri import api, node_files, processes
from hypercontainer.cri.container_request import resources_of, spec_of
from hypercontainer.cri.records import SandboxRecord
from hypercontainer.cri.sandbox_request import CriSettings, host_cpus, host_memory, plan_of
from hypercontainer.cri.server import PACKAGES, Server
from hypercontainer.cri.streaming.server import StreamingServer
from hypercontainer.errors import InvalidState
from hypercontainer.hypervisor.driver import VirtioFs
from hypercontainer.hypervisor.drivers import Drivers
from hypercontainer.hypervisor.fake import TAKES, FakeDriver
from hypercontainer.jail.fake import FakeJail
from hypercontainer.jail.jail import Started
from hypercontainer.model.specs import MEMORY_MIN, MIB
from hypercontainer.model.status import Pod
from hypercontainer.sys.mount_table import MountPoint, mount_table
from hypercontainer.volumes import share

from .cri_client import LIMIT, Client, channel, refused, served
from .stage import IMAGE, Stage, stage
from .test_cri_sandboxes import sandbox

PROFILE = '{"defaultAction":"SCMP_ACT_ALLOW"}'


def config(name: str = "main", *command: str, attempt: int = 0, **fields: Any) -> Any:
    metadata = {"name": name, "attempt": attempt}
    return api.ContainerConfig(metadata=metadata, image={"image": IMAGE}, command=command, **fields)


async def create(client: Client, pod: str, name: str, *command: str, **fields: Any) -> str:
    answer = await client.CreateContainer(pod_sandbox_id=pod, config=config(name, *command, **fields))
    return str(answer.container_id)


async def run(client: Client, pod: str, name: str, *command: str, **fields: Any) -> str:
    id_ = await create(client, pod, name, *command, **fields)
    await client.StartContainer(container_id=id_)
    return id_


async def state(client: Client, id_: str) -> Any:
    return (await client.ContainerStatus(container_id=id_)).status


async def ended(client: Client, id_: str) -> Any:
    async with asyncio.timeout(LIMIT):
        while (found := await state(client, id_)).state != api.CONTAINER_EXITED:
            await asyncio.sleep(0.01)
    return found


async def test_the_life_of_a_container(template: Path) -> None:
    async with served(template) as (s, client):
        pod = await sandbox(client)
        id_ = await create(client, pod, "main", "graceful", "0", labels={"a": "b"}, annotations={"c": "d"})
        made = await state(client, id_)
        assert (made.state, made.started_at, made.reason) == (api.CONTAINER_CREATED, 0, "")
        assert (made.metadata.name, dict(made.labels), dict(made.annotations)) == ("main", {"a": "b"}, {"c": "d"})
        assert made.image.image == IMAGE and made.image_ref.startswith("sha256:")
        await client.StartContainer(container_id=id_)
        runs = await client.ContainerStatus(container_id=id_, verbose=True)
        assert runs.status.state == api.CONTAINER_RUNNING and "container" in runs.info
        assert runs.status.started_at >= made.created_at > 10**18
        assert not made.HasField("user") and runs.status.user.linux.uid == 0
        assert (await refused(client.StartContainer(container_id=id_)))[0] == "FAILED_PRECONDITION"
        for _ in range(2):
            await client.StopContainer(container_id=id_, timeout=10)
        over = await state(client, id_)
        assert (over.state, over.exit_code, over.reason) == (api.CONTAINER_EXITED, 0, "Completed")
        assert over.finished_at >= over.started_at
        assert (await client.PodSandboxStatus(pod_sandbox_id=pod)).status.state == api.SANDBOX_READY
        assert (await refused(client.StartContainer(container_id=id_)))[0] == "FAILED_PRECONDITION"
        for _ in range(2):
            await client.RemoveContainer(container_id=id_)
        assert (await refused(client.ContainerStatus(container_id=id_)))[0] == "NOT_FOUND"
        await client.StopContainer(container_id=id_)
        assert not s.engine.registry.containers()


async def test_how_a_container_ended(template: Path) -> None:
    async with served(template) as (_, client):
        pod = await sandbox(client)
        failed = await ended(client, await run(client, pod, "failed", "exit", "3"))
        assert (failed.reason, failed.exit_code) == ("Error", 3)
        assert (await ended(client, await run(client, pod, "oom", "oom"))).reason == "OOMKilled"
        missing = await create(client, pod, "missing", "no-such-program")
        code, said = await refused(client.StartContainer(container_id=missing))
        assert code == "INVALID_ARGUMENT" and "no-such-program" in said
        status = await state(client, missing)
        assert (status.state, status.exit_code, status.reason) == (api.CONTAINER_EXITED, 127, "StartError")
        assert status.finished_at > 0


async def test_a_container_that_runs_is_killed_with_its_sandbox(template: Path) -> None:
    async with served(template) as (s, client):
        pod = await sandbox(client)
        id_ = await run(client, pod, "main", "ignore-term")
        await client.StopPodSandbox(pod_sandbox_id=pod)
        assert (await state(client, id_)).state == api.CONTAINER_EXITED
        said = await refused(client.CreateContainer(pod_sandbox_id=pod, config=config("late")))
        assert said[0] == "FAILED_PRECONDITION" and "not ready" in said[1]
        await client.RemovePodSandbox(pod_sandbox_id=pod)
        assert not s.engine.registry.containers() and not s.host.machines


async def test_a_second_attempt_has_the_same_name(template: Path) -> None:
    async with served(template) as (_, client):
        pod = await sandbox(client)
        await ended(client, await run(client, pod, "main", "exit", "1"))
        assert (await refused(client.CreateContainer(pod_sandbox_id=pod, config=config())))[0] == "ALREADY_EXISTS"
        await run(client, pod, "main", "sleep", "100000", attempt=1)
        found = (await client.ListContainers()).containers
        assert [(c.metadata.name, c.metadata.attempt) for c in found] == [("main", 1), ("main", 0)]


async def test_containers_are_found_by_id_sandbox_state_and_labels(template: Path) -> None:
    async with served(template) as (_, client):
        one, two = await sandbox(client, "one"), await sandbox(client, "two")
        a = await run(client, one, "a", labels={"x": "1"})
        b = await create(client, two, "b", labels={"x": "2"})

        async def listed(**wanted: Any) -> set[str]:
            return {i.id for i in (await client.ListContainers(filter=wanted)).containers}

        assert await listed() == {a, b}
        assert await listed(id=a[:10]) == {a}
        assert await listed(pod_sandbox_id=two) == {b}
        assert await listed(state={"state": api.CONTAINER_RUNNING}) == {a}
        assert await listed(label_selector={"x": "2"}) == {b}
        assert await listed(label_selector={"x": "2"}, pod_sandbox_id=one) == set()
        statuses = (await client.PodSandboxStatus(pod_sandbox_id=one)).containers_statuses
        assert [c.id for c in statuses] == [a]


async def test_the_log_is_where_the_kubelet_looks_for_it(template: Path, tmp_path: Path) -> None:
    async with served(template) as (_, client):
        pod = await sandbox(client, log_directory=str(tmp_path))
        (tmp_path / "main").mkdir()
        id_ = await run(client, pod, "main", "echo", "hello", log_path="main/0.log")
        status = await ended(client, id_)
        assert status.log_path == str(tmp_path / "main/0.log")
        line = (tmp_path / "main/0.log").read_text()
        assert line.endswith(" stdout F hello\n")
        assert (await refused(client.ReopenContainerLog(container_id=id_)))[0] == "FAILED_PRECONDITION"
        goes_on = await run(client, pod, "on", "cat", stdin=True, log_path="on.log")
        (tmp_path / "on.log").rename(tmp_path / "on.log.old")
        await client.ReopenContainerLog(container_id=goes_on)
        assert (tmp_path / "on.log").exists()
        said = await refused(client.CreateContainer(pod_sandbox_id=pod, config=config("x", log_path="../../x")))
        assert said[0] == "INVALID_ARGUMENT"
        await client.RemoveContainer(container_id=id_)
        assert (tmp_path / "main/0.log").read_text() == line  # it is the kubelet's


async def test_exec_sync(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_KEPT", 5000)
    async with served(template) as (_, client):
        pod = await sandbox(client)
        id_ = await run(client, pod, "main")
        done = await client.ExecSync(container_id=id_, cmd=["echo", "hi"])
        assert (done.stdout, done.stderr, done.exit_code) == (b"hi\n", b"", 0)
        assert (await client.ExecSync(container_id=id_, cmd=["exit", "4"])).exit_code == 4
        late = await refused(client.ExecSync(container_id=id_, cmd=["sleep", "100"], timeout=1))
        assert late[0] == "DEADLINE_EXCEEDED" and "within 1 s" in late[1]
        long = await client.ExecSync(container_id=id_, cmd=["flood", "100000"])
        assert len(long.stdout) == 5000 and long.exit_code == 0
        assert (await refused(client.ExecSync(container_id=id_)))[0] == "INVALID_ARGUMENT"
        assert (await refused(client.ExecSync(container_id=id_, cmd=["none"])))[0] == "INVALID_ARGUMENT"
        await client.StopContainer(container_id=id_)
        assert (await refused(client.ExecSync(container_id=id_, cmd=["echo"])))[0] == "FAILED_PRECONDITION"
        assert (await refused(client.CheckpointContainer(container_id=id_)))[0] == "UNIMPLEMENTED"


async def test_limits_are_changed_while_it_runs(template: Path) -> None:
    async with served(template) as (s, client):
        pod = await sandbox(client)
        id_ = await run(client, pod, "main", linux={"resources": {"memory_limit_in_bytes": 64 * MIB}})
        assert (await state(client, id_)).resources.linux.memory_limit_in_bytes == 64 * MIB
        await client.UpdateContainerResources(container_id=id_, linux={"cpu_quota": 50_000, "cpu_period": 100_000})
        limits = s.engine.registry.container(id_).spec.resources
        assert (limits.cpus, limits.memory) == (0.5, 64 * MIB)
        await client.UpdateContainerResources(container_id=id_, linux={"cpu_quota": -1})
        assert s.engine.registry.container(id_).spec.resources.cpus == 0
        said = await refused(
            client.UpdateContainerResources(container_id=id_, linux={"memory_limit_in_bytes": 1 << 40})
        )
        assert said[0] == "FAILED_PRECONDITION" and "cri_pod_memory" in said[1]


def of(**fields: Any) -> Any:
    """The specification that a configuration becomes."""
    pod = Pod(id="p" * 64, name="pod", created_at="", hostname="h", vcpus=1, memory=512 * MIB)
    return spec_of(pod, SandboxRecord(name="pod"), config(**fields))


def secured(**fields: Any) -> Any:
    return of(linux={"security_context": fields})


def test_the_security_context() -> None:
    spec = secured(
        capabilities={"add_capabilities": ["NET_ADMIN"], "drop_capabilities": ["ALL"]}, run_as_user={"value": 5},
        run_as_group={"value": 6}, supplemental_groups=[7], readonly_rootfs=True, no_new_privs=True,
        masked_paths=["/proc/kcore"], namespace_options={"pid": api.CONTAINER}, seccomp={},
    )  # fmt: skip
    assert (spec.cap_add, spec.cap_drop, spec.user, spec.groups) == (["NET_ADMIN"], ["ALL"], "5:6", ["7"])
    assert (spec.read_only, spec.no_new_privileges, spec.pid, spec.seccomp) == (True, True, "container", "default")
    assert (spec.masked_paths, spec.readonly_paths) == (["/proc/kcore"], [])  # as it says, which may be none
    assert (of().masked_paths, secured(privileged=True).masked_paths) == (None, None)
    ambient = secured(capabilities={"add_ambient_capabilities": ["KILL"]})
    assert (ambient.cap_add, ambient.cap_ambient) == (["KILL"], ["KILL"])
    assert secured(run_as_username="web").user == "web"
    assert (of().only_groups, secured(supplemental_groups_policy=api.Strict).only_groups) == (False, True)
    assert secured(run_as_user={"value": 0}).user == "0"
    assert secured(privileged=True, masked_paths=["/x"]).privileged
    assert (of().pid, secured(namespace_options={}).pid) == ("", "pod")
    assert of().seccomp == secured(seccomp={"profile_type": 1}).seccomp == "unconfined"
    assert secured(seccomp_profile_path="runtime/default").seccomp == "default"


def test_a_seccomp_profile_of_the_node(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(PROFILE)
    for fields in ({"seccomp": {"profile_type": 2, "localhost_ref": str(file)}},
                   {"seccomp_profile_path": f"localhost/{file}"}):  # fmt: skip
        assert secured(**fields).seccomp_profile == PROFILE
        unconfined = secured(privileged=True, **fields)
        assert (unconfined.seccomp, unconfined.seccomp_profile) == ("unconfined", "")
    file.write_bytes(b"\xff")
    with pytest.raises(InvalidState, match="no text"):
        secured(seccomp_profile_path=f"localhost/{file}")


def test_command_environment_and_signal_are_what_the_pod_says() -> None:
    spec = of(args=["b"], envs=[{"key": "A", "value": "1"}], working_dir="/w", stop_signal=api.SIGRTMINPLUS3, tty=True)
    assert (spec.entrypoint, spec.command, spec.env, spec.workdir) == (None, ["b"], ["A=1"], "/w")
    assert (spec.stop_signal, spec.tty, spec.no_health) == ("SIGRTMIN+3", True, True)
    assert len(of(name="n" * 200).name) <= 128 and of(name="n" * 200, attempt=7).name.endswith("_7")


CONTEXTS: list[tuple[dict[str, Any], str]] = [
    ({"namespace_options": {"pid": api.NODE}}, "pid namespace of the node"),
    ({"namespace_options": {"pid": api.TARGET}}, "has no target_id"),
    ({"run_as_group": {"value": 1}}, "without a user"),
    ({"run_as_user": {"value": 1}, "run_as_username": "x"}, "both"),
    ({"run_as_user": {"value": -1}}, "-1 is the number of no user"),
    ({"supplemental_groups": [1 << 40]}, "of no user or group"),
    ({"supplemental_groups_policy": 7}, "supplementalGroupsPolicy 7"),
    ({"seccomp": {"profile_type": 2, "localhost_ref": "/no/such"}}, "/no/such of the node cannot be read"),
    ({"seccomp_profile_path": "localhost/x"}, "'x' is no path"),
    ({"seccomp": {"profile_type": 2, "localhost_ref": "/dev/null"}}, "/dev/null of the node is empty"),
    ({"seccomp_profile_path": f"localhost/{__file__}"}, "is not understood"),
    ({"apparmor_profile": "localhost/x"}, "AppArmor"),
    ({"masked_paths": ["/secret"]}, "/secret cannot be masked"),
    ({"capabilities": {"add_ambient_capabilities": ["NOPE"]}}, "unknown capability 'NOPE'"),
]
CONFIGS: list[tuple[dict[str, Any], str]] = [
    *(({"linux": {"security_context": context}}, word) for context, word in CONTEXTS),
    ({"devices": [{"host_path": "/dev/kvm"}]}, "devices of the node"),
    ({"CDI_devices": [{"name": "x"}]}, "devices of the node"),
    ({"linux": {"resources": {"hugepage_limits": [{"page_size": "2MB", "limit": 1}]}}}, "huge pages"),
    ({"linux": {"resources": {"memory_limit_in_bytes": 1 << 40}}}, "more than"),
    ({"mounts": [{"container_path": "/x", "host_path": "/", "propagation": 2}]}, "propagated"),
    ({"mounts": [{"container_path": "/x", "image": {}}]}, "has no name"),
    ({"mounts": [{"container_path": "/x", "host_path": "/", "image": {"image": "x"}}]}, "give one of them"),
    ({"mounts": [{"container_path": "/x"}]}, "no path"),
    ({"image": {}}, "no image"),
]


@pytest.mark.parametrize(("fields", "word"), CONFIGS, ids=[word for _, word in CONFIGS])
async def test_what_cannot_be_is_refused_in_a_sentence_and_leaves_nothing(
    template: Path, fields: dict[str, Any], word: str
) -> None:
    async with served(template) as (s, client):
        pod = await sandbox(client)
        wanted = config()
        for name in [n for n in ("image",) if n in fields]:
            wanted.ClearField(name)
        wanted.MergeFrom(api.ContainerConfig(**fields))
        code, said = await refused(client.CreateContainer(pod_sandbox_id=pod, config=wanted))
        assert code in ("INVALID_ARGUMENT", "UNIMPLEMENTED", "FAILED_PRECONDITION") and word in said
        assert not s.engine.registry.containers()


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> Callable[[Stage], None]:
    """Directories of the host; their servers are sockets."""

    async def served_by(binary: str, directory: Path, *_: object, **__: bool) -> tuple[socket.socket, Started]:
        ours, theirs = socket.socketpair()
        theirs.close()
        return ours, Started(4711, 1)

    async def carried(*_: object) -> None: ...

    monkeypatch.setattr(share, "start_virtiofsd", served_by)
    monkeypatch.setattr(share, "start_carrier", carried)
    monkeypatch.setattr(share, "find_virtiofsd", lambda: "/virtiofsd")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return lambda s: setattr(s, "drivers", lambda: Drivers([FakeDriver(s.host, takes=TAKES | {VirtioFs})]))


async def test_directories_and_files_of_the_node(
    template: Path, tmp_path: Path, shares: Callable[[Stage], None], jail: FakeJail, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "pods/of-web"
    (own / "volumes/secret").mkdir(parents=True)
    (own / "link").symlink_to(own / "volumes")
    (own / "hosts").write_text("127.0.0.1 localhost\n")
    (own / "sub").mkdir()
    table = [MountPoint("8:1", "/", "/"), MountPoint("0:7", "/", str(own / "volumes/secret"))]
    monkeypatch.setattr(node_files, "mount_table", lambda: table)
    mounts = [
        {"container_path": "/data", "host_path": str(own / "link"), "readonly": True},
        {"container_path": "/etc/hosts", "host_path": str(own / "hosts")},
        {"container_path": "/secret", "host_path": str(own / "volumes/secret")},
    ]
    settings = CriSettings(kubelet=str(tmp_path))
    async with served(template, prepare=shares, cri=settings, virtiofs=True) as (s, client):
        pod = await sandbox(client)
        assert [v.source for v in s.engine.registry.pod(pod).volumes] == [str(own), str(own / "volumes/secret")]
        id_ = await run(client, pod, "main", mounts=mounts)
        found = s.engine.registry.container(id_).spec.mounts
        assert [(m.source, m.sub_path, m.target, m.read_only) for m in found] == [
            ("kubelet-0", "volumes", "/data", True),
            ("kubelet-0", "hosts", "/etc/hosts", False),
            ("kubelet-1", "", "/secret", False),
        ]
        # A part of a volume that is mounted elsewhere later, and something that the sandbox knows nothing of.
        table.append(MountPoint("8:1", str(own / "volumes"), str(own / "sub")))
        parts = [{"container_path": "/part", "host_path": str(own / "sub")}]
        sub = s.engine.registry.container(await run(client, pod, "sub", mounts=parts)).spec.mounts
        assert [(m.source, m.sub_path) for m in sub] == [("kubelet-0", "volumes")]
        table[-1] = MountPoint("0:8", "/", str(own / "sub"))
        late = s.engine.registry.container(await run(client, pod, "late", mounts=parts)).spec.mounts
        assert [(m.type, m.source, m.target, m.read_only) for m in late] == [("bind", str(own / "sub"), "/part", False)]
        assert [entry.source for _, entry in jail.added] == [own / "sub"]
        told = (await state(client, id_)).mounts
        assert [(m.container_path, m.host_path) for m in told][:1] == [("/data", str(own / "link"))]
        wanted = config("b", mounts=[{"container_path": "/y", "host_path": str(own / "gone")}])
        code, said = await refused(client.CreateContainer(pod_sandbox_id=pod, config=wanted))
        assert code == "FAILED_PRECONDITION" and "does not exist" in said


async def test_mounts_that_the_node_makes_later(
    template: Path, tmp_path: Path, shares: Callable[[Stage], None], jail: FakeJail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By root's hyperd; another refuses them, and nothing is left."""
    follow = [{"container_path": "/m", "host_path": str(tmp_path), "propagation": api.PROPAGATION_HOST_TO_CONTAINER}]
    async with served(template, prepare=shares, virtiofs=True) as (s, client):
        pod = await sandbox(client)
        code, said = await refused(client.CreateContainer(pod_sandbox_id=pod, config=config("a", mounts=follow)))
        assert code == "UNIMPLEMENTED" and "root's hyperd" in said and not s.engine.registry.containers()
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        id_ = await run(client, pod, "b", mounts=follow)
        assert [m.propagation for m in s.engine.registry.container(id_).spec.mounts] == ["rslave"]
        (told,) = (await state(client, id_)).mounts
        assert told.propagation == api.PROPAGATION_HOST_TO_CONTAINER


async def test_an_image_is_a_volume(template: Path) -> None:
    """Of all containers of a sandbox that mount it; it stays while one has it."""
    async with served(template) as (s, client):
        pod = await sandbox(client)
        mounts = [{"container_path": "/m", "image": {"image": IMAGE}, "image_sub_path": "etc"}]
        one, two = [await run(client, pod, name, mounts=mounts) for name in ("one", "two")]
        (volume,) = s.engine.registry.pod(pod).volumes
        image = s.engine.images.find(IMAGE)
        assert (volume.kind, volume.source, volume.read_only) == ("image", image.id, True)
        (mount,) = s.engine.registry.container(one).mounts
        assert (mount.volume, mount.mount.sub_path, mount.mount.read_only) == (volume.name, "etc", True)
        assert [m.container_path for m in (await state(client, one)).mounts] == ["/m"]
        await client.RemoveContainer(container_id=one)
        assert s.engine.registry.pod(pod).volumes
        await client.RemoveContainer(container_id=two)
        assert not s.engine.registry.pod(pod).volumes
        unknown = config("b", mounts=[{"container_path": "/y", "image": {"image": "no-such"}}])
        assert (await refused(client.CreateContainer(pod_sandbox_id=pod, config=unknown)))[0] == "NOT_FOUND"


def test_where_a_file_lies_whatever_it_is_mounted_as(tmp_path: Path) -> None:
    text = tmp_path / "mountinfo"
    lines = ["1 0 8:1 / / rw", "2 1 8:2 /a /mnt rw", "3 2 8:3 / /mnt rw", "4 1 8:1 /x\\040y /c\\134040 rw"]
    text.write_text("".join(f"{line} - ext4 dev rw\n" for line in lines))
    table = mount_table(text)
    assert node_files.place_of("/etc", table) == ("8:1", "/etc")
    assert node_files.place_of("/mnt/b", table) == ("8:3", "/b")  # the later one is on top
    assert node_files.place_of("/mntx", table) == ("8:1", "/mntx")
    part = node_files.place_of("/c\\040/d", table)
    assert part == ("8:1", "/x y/d") and part.below(node_files.Place("8:1", "/")) == "x y/d"
    assert part.below(node_files.Place("8:1", "/x")) is None is part.below(node_files.Place("8:2", "/"))
    assert part.below(part) == ""


def test_limits_above_the_node_and_below_what_can_run() -> None:
    def limited(pod_memory: int, **limits: int) -> Any:
        pod = Pod(id="p" * 64, name="pod", created_at="", hostname="h", vcpus=1, memory=pod_memory)
        return resources_of(pod, api.LinuxContainerResources(**limits))

    assert limited(512 * MIB, memory_limit_in_bytes=4 * MIB).memory == MEMORY_MIN
    assert limited(host_memory(), memory_limit_in_bytes=1 << 50).memory == 0
    assert limited(512 * MIB, cpu_quota=100_000_000).cpus == host_cpus()
    assert limited(512 * MIB, cpu_quota=50_000).cpus == 0.5
    wide = api.PodSandboxConfig(
        metadata={"name": "x"}, linux={"resources": {"memory_limit_in_bytes": 1 << 50, "cpu_quota": 100_000_000}}
    )
    plan = plan_of(wide, "", CriSettings())
    assert (plan.vcpus, plan.memory) == (host_cpus(), host_memory())


async def test_sandboxes_and_containers_outlive_the_daemon(template: Path, tmp_path: Path) -> None:
    with stage(template) as s:
        for daemon in range(2):
            engine = s.prepare().engine
            await engine.open()
            async with StreamingServer(engine, socket.create_server(("127.0.0.1", 0))) as streaming:
                server = Server(engine, streaming, CriSettings(kubelet=str(tmp_path)))
                path = s.paths.run / f"{daemon}.sock"
                await server.open(path)
                async with channel(path) as opened:
                    client = Client(opened)
                    if daemon == 0:
                        pod = await sandbox(client, annotations={"a": "b"}, log_directory=str(tmp_path))
                        id_ = await run(client, pod, "main", log_path="main.log")
                        before = await state(client, id_)
                    else:
                        status = (await client.PodSandboxStatus(pod_sandbox_id=pod)).status
                        assert (status.state, dict(status.annotations)) == (api.SANDBOX_READY, {"a": "b"})
                        assert await state(client, id_) == before and before.state == api.CONTAINER_RUNNING
                        assert (await client.ExecSync(container_id=id_, cmd=["echo", "hi"])).stdout == b"hi\n"
                        await client.RemovePodSandbox(pod_sandbox_id=pod)
                await server.close()
            await engine.close(keep_running=daemon == 0)
        assert not s.host.machines


@pytest.mark.parametrize("package", PACKAGES)
async def test_every_method_is_there_by_both_names(template: Path, package: str) -> None:
    async with served(template, own_images=True) as (s, _), channel(s.paths.run / "cri.sock") as opened:
        client = Client(opened, package)
        for service in api.SERVICES:
            for method in api.FILE.services_by_name[service].methods:
                call = getattr(client, method.name)()
                if method.server_streaming:
                    await call.initial_metadata()
                    call.cancel()
                    continue
                try:
                    await call
                except grpc.aio.AioRpcError as error:
                    assert error.details() and "Method not found" not in error.details(), method.name


async def test_what_is_no_message_is_refused(template: Path) -> None:
    async with served(template) as (s, client), channel(s.paths.run / "cri.sock") as opened:
        raw = opened.unary_unary("/runtime.v1.RuntimeService/RunPodSandbox")
        for body in (b"\xff" * 9, b"\x0a\x05ab", b""):
            assert (await refused(raw(body, timeout=20)))[0] == "INVALID_ARGUMENT"
        assert (await refused(opened.unary_unary("/runtime.v1.RuntimeService/Nothing")(b"")))[0] == "UNIMPLEMENTED"
        assert (await client.Version()).runtime_name == "hypercontainer"


async def test_what_containers_and_sandboxes_use(template: Path) -> None:
    async with served(template) as (_, client):
        pod = await sandbox(client, labels={"a": "b"})
        main, made = await run(client, pod, "main", labels={"x": "1"}), await create(client, pod, "made")
        (used,) = (await client.ListContainerStats()).stats
        assert (used.attributes.id, used.attributes.metadata.name) == (main, "main")
        assert used.cpu.timestamp > 10**18 and used.memory.HasField("usage_bytes")
        assert (await client.ContainerStats(container_id=main)).stats.writable_layer.timestamp > 10**18
        assert not (await client.ContainerStats(container_id=made)).stats.HasField("cpu")
        assert not (await client.ListContainerStats(filter={"label_selector": {"x": "2"}})).stats
        stats = (await client.PodSandboxStats(pod_sandbox_id=pod)).stats
        assert [c.attributes.id for c in stats.linux.containers] == [main]
        assert stats.linux.network.default_interface.name == "eth0" and stats.attributes.metadata.name == "web"
        assert len((await client.ListPodSandboxStats(filter={"label_selector": {"a": "b"}})).stats) == 1
        assert (await refused(client.PodSandboxStats(pod_sandbox_id="none")))[0] == "NOT_FOUND"


async def test_events_tell_of_sandboxes_and_their_containers(template: Path) -> None:
    async with served(template) as (_, client):
        stream = client.GetContainerEvents()
        await stream.initial_metadata()  # it stands
        pod = await sandbox(client)
        id_ = await run(client, pod, "main", "exit", "3")
        await ended(client, id_)
        await client.RemoveContainer(container_id=id_)
        await client.RemovePodSandbox(pod_sandbox_id=pod)
        told = [await stream.read() for _ in range(8)]
        stream.cancel()
        kinds = [(e.container_id == pod, e.container_event_type) for e in told]
        assert [kind for own, kind in kinds if own] == [0, 1, 2, 3] == [kind for own, kind in kinds if not own]
        died = next(e for e in told if e.container_id == id_ and e.container_event_type == 2)
        assert died.pod_sandbox_status.id == pod and died.created_at > 10**18
        assert [c.exit_code for c in died.containers_statuses] == [3]
        assert not told[-1].HasField("pod_sandbox_status")


async def test_metrics_have_the_names_and_labels_that_are_described(template: Path) -> None:
    async with served(template) as (_, client):
        pod = await sandbox(client)
        main = await run(client, pod, "main")
        await client.StopPodSandbox(pod_sandbox_id=await sandbox(client, "stopped"))
        described = {d.name: d for d in (await client.ListMetricDescriptors()).descriptors}
        assert all(d.help and d.name.startswith("container_") for d in described.values())
        (found,) = (await client.ListPodSandboxMetrics()).pod_metrics
        assert found.pod_sandbox_id == pod and [c.container_id for c in found.container_metrics] == [main]
        metrics = [*found.metrics, *(m for c in found.container_metrics for m in c.metrics)]
        assert {m.name for m in found.container_metrics[0].metrics} < described.keys()
        for m in metrics:
            labels = dict(zip(described[m.name].label_keys, m.label_values, strict=True))
            assert (labels["namespace"], labels["pod"]) == ("default", "web") and m.timestamp == 0
            assert labels["container"] == ("interface" not in labels) * "main"
        limit = next(m for m in metrics if m.name == "container_spec_memory_limit_bytes")
        assert limit.metric_type == api.GAUGE and limit.value.value > 0
