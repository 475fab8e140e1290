# SPDX-License-Identifier: Apache-2.0
"""CRI: what the runtime is, sandboxes, images; over a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.cri import api, faults
from hypercontainer.cri.images import credentials
from hypercontainer.cri.sandbox_request import CriSettings, plan_of
from hypercontainer.cri.server import PACKAGES
from hypercontainer.cri.views import is_ready
from hypercontainer.engine.audit import AuditSettings
from hypercontainer.errors import Conflict, HyperError, InvalidArgument
from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.cri import cri
from hypercontainer.hyperd.listening import listening
from hypercontainer.model.registry_auth import registry_auth
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.protocol.constants import Type

from .cri_client import LIMIT, Client, channel, refused, served
from .stage import IMAGE, Stage, stage


def config(name: str = "web", *, uid: str = "u1", attempt: int = 0, **fields: Any) -> Any:
    metadata = api.PodSandboxMetadata(name=name, uid=uid, namespace="default", attempt=attempt)
    return api.PodSandboxConfig(metadata=metadata, **fields)


async def sandbox(client: Client, name: str = "web", **fields: Any) -> str:
    answer = await client.RunPodSandbox(config=config(name, uid=f"of-{name}", **fields))
    return str(answer.pod_sandbox_id)


def test_every_error_has_a_code_of_its_own() -> None:
    assert set(faults.CODES) == {k for k in HyperError.__subclasses__() if k.__module__ == HyperError.__module__}
    assert faults.code_of(ValueError("x")).name == "INTERNAL"


@pytest.mark.parametrize("package", PACKAGES)
async def test_what_the_runtime_is(template: Path, package: str) -> None:
    async with served(template) as (s, _), channel(s.paths.run / "cri.sock") as opened:
        client = Client(opened, package)
        answer = await client.Version(version="0.1.0")
        assert (answer.version, answer.runtime_name) == ("0.1.0", "hypercontainer")
        assert answer.runtime_api_version == package.rpartition(".")[2]
        found = await client.Status(verbose=True)
        conditions = {c.type: c.status for c in found.status.conditions}
        assert conditions == {"RuntimeReady": False, "NetworkReady": True}  # there is no kernel
        assert "hyperd" in found.info and [h.name for h in found.runtime_handlers] == ["", "hyper", "hyper-fresh"]
        assert (await client.RuntimeConfig()).linux.cgroup_driver == api.CGROUPFS
        await client.UpdateRuntimeConfig(runtime_config={"network_config": {"pod_cidr": "10.1.0.0/24"}})
        assert list((await client.ListPodSandbox()).items) == []


async def test_a_sandbox_runs_without_a_container_until_it_is_stopped(template: Path) -> None:
    async with served(template, network="bridge") as (s, client):
        id_ = await sandbox(client, labels={"app": "x"}, annotations={"a": "b"}, hostname="web", log_directory="/var/l")
        answer = await client.PodSandboxStatus(pod_sandbox_id=id_, verbose=True)
        status = answer.status
        assert (status.id, status.state, status.metadata.namespace) == (id_, api.SANDBOX_READY, "default")
        assert (dict(status.labels), dict(status.annotations)) == ({"app": "x"}, {"a": "b"})
        assert status.network.ip == s.engine.registry.pod(id_).attachments[0].ip
        assert status.created_at > 10**18 and answer.timestamp >= status.created_at and "pod" in answer.info
        assert len(s.host.machines) == 1

        for _ in range(2):
            await client.StopPodSandbox(pod_sandbox_id=id_)
        stopped = (await client.PodSandboxStatus(pod_sandbox_id=id_)).status
        assert (stopped.state, stopped.network.ip) == (api.SANDBOX_NOTREADY, "") and not s.host.machines
        for _ in range(2):
            await client.RemovePodSandbox(pod_sandbox_id=id_)
        assert (await refused(client.PodSandboxStatus(pod_sandbox_id=id_)))[0] == "NOT_FOUND"
        await client.StopPodSandbox(pod_sandbox_id=id_)


async def test_the_second_sandbox_is_one_that_waited(template: Path) -> None:
    """One of the class hyper-fresh boots: it shares no memory with another."""
    async with served(template, network="bridge", factory=True) as (s, client):
        await sandbox(client, "one")
        started = s.engine.factory.started
        async with asyncio.timeout(LIMIT):
            while not any(waiting for waiting, _ in s.engine.factory.pool.counts().values()):
                await asyncio.sleep(0.01)
        id_ = await sandbox(client, "two")
        assert started == {"pool": 1, "clone": 0, "cold": 1}
        assert not s.machine(s.engine.registry.pod(id_).name).disks
        await client.RunPodSandbox(config=config("three"), runtime_handler="hyper-fresh")
        assert started["cold"] == 2


async def test_sandboxes_are_found_by_id_state_and_labels(template: Path) -> None:
    async with served(template) as (s, client):
        one = await sandbox(client, "one", labels={"app": "x", "tier": "1"})
        two = await sandbox(client, "two", labels={"app": "x"})
        await client.StopPodSandbox(pod_sandbox_id=two)
        await s.engine.containers.create(ContainerSpec(image=IMAGE, name="other"))  # is nobody's business here

        async def listed(**wanted: Any) -> set[str]:
            return {i.id for i in (await client.ListPodSandbox(filter=wanted)).items}

        assert await listed() == {one, two}
        assert await listed(id=one[:12]) == {one}
        assert await listed(state={"state": api.SANDBOX_READY}) == {one}
        assert await listed(state={"state": api.SANDBOX_NOTREADY}) == {two}
        assert await listed(label_selector={"app": "x"}) == {one, two}
        assert await listed(label_selector={"app": "x", "tier": "1"}) == {one}
        assert await listed(id=two, state={"state": api.SANDBOX_READY}) == set()
        assert (await refused(client.PodSandboxStatus(pod_sandbox_id="other")))[0] == "NOT_FOUND"
        assert (await refused(client.PodSandboxStatus()))[0] == "INVALID_ARGUMENT"
        await s.engine.containers.remove("other")


async def test_a_second_sandbox_of_the_same_pod_and_attempt_is_refused(template: Path) -> None:
    async with served(template) as (_, client):
        await client.RunPodSandbox(config=config())
        assert (await refused(client.RunPodSandbox(config=config())))[0] == "ALREADY_EXISTS"
        await client.RunPodSandbox(config=config(attempt=1))


NODE = {"linux": {"security_context": {"namespace_options": {"network": api.NODE}}}}
USERS = {"linux": {"security_context": {"namespace_options": {"userns_options": {"uids": [{"length": 9}]}}}}}


@pytest.mark.parametrize(
    ("fields", "handler", "code", "word"),
    [
        (NODE, "", "INVALID_ARGUMENT", "network namespace of the node"),
        (USERS, "", "INVALID_ARGUMENT", "user namespaces"),
        ({}, "gvisor", "INVALID_ARGUMENT", "hyper, hyper-fresh, hyper-fc"),
        ({}, "hyper-fc", "INVALID_ARGUMENT", "no driver 'firecracker'"),
        ({"port_mappings": [{"host_port": 1, "container_port": 1, "protocol": 2}]}, "", "INVALID_ARGUMENT", "TCP"),
        ({"port_mappings": [{"host_port": 99999, "container_port": 1}]}, "", "INVALID_ARGUMENT", "hostPort"),
        ({"dns_config": {"servers": ["x"]}}, "", "INVALID_ARGUMENT", "x"),
    ],
)
async def test_what_a_virtual_machine_cannot_be_is_refused_and_leaves_nothing(
    template: Path, fields: dict[str, Any], handler: str, code: str, word: str
) -> None:
    async with served(template) as (s, client):
        said = await refused(client.RunPodSandbox(config=config(**fields), runtime_handler=handler))
        assert said[0] == code and word in said[1]
        assert s.engine.registry.pods() == [] and not s.host.machines


async def test_a_client_that_gives_up_leaves_no_sandbox(template: Path) -> None:
    async with served(template) as (s, client):
        s.silent.add(Type.HELLO)  # it does not come up
        call = client.RunPodSandbox(config=config(), within=0.2)
        assert (await refused(call))[0] == "DEADLINE_EXCEEDED"
        async with asyncio.timeout(LIMIT):
            while s.engine.registry.pods() or s.host.machines:
                await asyncio.sleep(0.01)


async def test_size_and_network_are_what_the_pod_asks_for(template: Path) -> None:
    async with served(template) as (s, client):
        resources = {"memory_limit_in_bytes": 1 << 30, "cpu_quota": 150_000, "cpu_period": 100_000}
        dns = {"servers": ["10.0.0.10"], "searches": ["svc.local"], "options": ["ndots:5"]}
        linux = {"resources": resources, "sysctls": {"net.core.somaxconn": "512"}}
        pod = s.engine.registry.pod(await sandbox(client, linux=linux, dns_config=dns))
        assert pod.vcpus == 2 and pod.memory >= (1 << 30) + (40 << 20)
        assert (pod.spec.dns, pod.spec.dns_search, pod.spec.dns_options) == (["10.0.0.10"], ["svc.local"], ["ndots:5"])
        assert pod.spec.sysctls == {"net.core.somaxconn": "512"}


async def test_images(template: Path) -> None:
    async with served(template, own_images=True) as (s, client):
        (image,) = (await client.ListImages()).images
        assert list(image.repo_tags) == [IMAGE] and image.size > 0 and image.id.startswith("sha256:")
        assert [i.id for i in (await client.ListImages(filter={"image": {"image": "box"}})).images] == [image.id]
        assert not (await client.ListImages(filter={"image": {"image": "no"}})).images
        found = await client.ImageStatus(image={"image": image.id}, verbose=True)
        assert found.image.id == image.id and "image" in found.info
        assert not (await client.ImageStatus(image={"image": "no"})).HasField("image")
        assert (await refused(client.ImageStatus()))[0] == "INVALID_ARGUMENT"
        (usage,) = (await client.ImageFsInfo()).image_filesystems
        assert usage.fs_id.mountpoint == str(s.paths.images) and usage.used_bytes.value > 0 < usage.inodes_used.value
        for _ in range(2):
            await client.RemoveImage(image={"image": "box"})
        assert not (await client.ListImages()).images


def test_credentials() -> None:
    assert credentials(api.AuthConfig()) == ""
    given = credentials(api.AuthConfig(username="a", password="b"))
    assert given and credentials(api.AuthConfig(auth="YTpi")) == given
    assert credentials(api.AuthConfig(identity_token="x", registry_token="y")) == registry_auth(
        "", "", identity_token="x"
    )
    with pytest.raises(HyperError, match="a registry token alone cannot be handed on"):
        credentials(api.AuthConfig(registry_token="x"))
    with pytest.raises(HyperError, match="invalid credentials"):
        credentials(api.AuthConfig(auth="?"))


async def test_requests_are_in_the_audit_log_and_records_say_whose_they_are(template: Path, tmp_path: Path) -> None:
    async with served(template, audit=AuditSettings(tmp_path / "audit")) as (s, client):
        id_ = await sandbox(client)
        await refused(client.PodSandboxStatus(pod_sandbox_id="none"))
        assert s.engine.registry.pod(id_).owner == "cri"
    lines = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    told = [(x["path"].rpartition("/")[2], x["principal"], x["status"], x.get("code", "")) for x in lines]
    assert told == [("RunPodSandbox", "cri", 200, ""), ("PodSandboxStatus", "cri", 200, "not_found")]
    assert lines[0]["path"] == "/runtime.v1.RuntimeService/RunPodSandbox"


def test_a_sandbox_without_containers_outlives_a_daemon_that_is_killed(act: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        pod = await s.call(s.engine.pods.create(plan_of(config(), "", CriSettings())))
        await s.call(s.engine.pods.start(pod.id))
        s.kill()
        await s.open()
        await asyncio.sleep(60)
        assert s.engine.registry.pod(pod.id).status == "running" and len(s.host.machines) == 1
        await s.close(keep_running=True)
        await s.open()
        await asyncio.sleep(60)
        assert s.engine.registry.pod(pod.id).status == "running" and len(s.host.machines) == 1
        created = await s.create("main", "sleep", "5", pod=pod.id)
        await s.call(s.engine.containers.start(created))
        await asyncio.sleep(10)
        assert s.status(created) == "exited" and s.engine.registry.pod(pod.id).status == "running"

    act(scenario)


def test_a_sandbox_that_is_made_when_the_daemon_is_killed_is_one_or_none(act: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        s.silent.add(Type.HELLO)
        pod = await s.call(s.engine.pods.create(plan_of(config(), "", CriSettings())))
        assert s.daemon
        s.daemon.call(s.engine.pods.start(pod.id))
        await asyncio.sleep(1)
        s.kill()
        s.silent.clear()
        await s.open()
        await asyncio.sleep(60)
        ready = is_ready(s.engine.registry.pod(pod.id))
        assert len(s.host.machines) == ready

    act(scenario)


async def test_hyperd_serves_it_where_it_is_asked_for(template: Path, tmp_path: Path) -> None:
    path = tmp_path / "run/cri.sock"
    path.parent.mkdir()
    path.touch()  # what an earlier daemon left
    wanted = Config(run=str(path.parent), cri=True, cri_network="none", socket_mode="600")
    with stage(template) as s:
        engine = s.prepare().engine
        await engine.open()
        async with cri(Config(run=str(path.parent)), engine):
            pass  # nothing is served
        with listening(wanted):
            assert not path.exists()
            async with cri(wanted, engine), channel(path) as opened:
                assert path.stat().st_mode & 0o777 == 0o600
                client = Client(opened)
                pod = s.engine.registry.pod(await sandbox(client))
                assert (pod.spec.network, pod.memory) == ("none", 512 << 20)
                with pytest.raises(Conflict, match="cri.sock"), listening(Config(run=str(tmp_path), cri=True,
                                                                                  cri_socket=str(path))):  # fmt: skip
                    pass
                await client.RemovePodSandbox(pod_sandbox_id=pod.id)
        assert not path.exists()
        await engine.close(keep_running=False)


def test_memory_of_pods_is_a_size() -> None:
    assert Config(cri_pod_memory="1g").cri_pod_bytes == 1 << 30
    with pytest.raises(HyperError, match="too small"):
        _ = Config(cri_pod_memory="1m").cri_pod_bytes


async def test_an_image_is_pulled_and_has_one_id_everywhere(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(template, own_images=True) as (s, client):
        asked = []
        pull = s.engine.pull

        def pulled(name: str, *, platform: str = "", auth: str = "") -> Any:
            asked.append((name, auth))
            return pull(name, platform=platform, auth="")

        monkeypatch.setattr(s.engine, "pull", pulled)
        auth = {"username": "me", "password": "secret"}
        id_ = (await client.PullImage(image={"image": "builtin:busybox"}, auth=auth)).image_ref
        assert asked == [("builtin:busybox", credentials(api.AuthConfig(**auth)))]
        assert (await client.ImageStatus(image={"image": "busybox"})).image.id == id_
        pod = await sandbox(client)
        config = {"metadata": {"name": "x"}, "image": {"image": id_, "user_specified_image": "busybox"}}
        made = (await client.CreateContainer(pod_sandbox_id=pod, config=config)).container_id
        status = (await client.ContainerStatus(container_id=made)).status
        assert (status.image_id, status.image_ref, status.image.image) == (id_, id_, "busybox")
        assert (await refused(client.RemoveImage(image={"image": id_})))[0] == "FAILED_PRECONDITION"
        assert (await refused(client.PullImage(image={"image": "///"})))[0] == "INVALID_ARGUMENT"


def test_what_plugins_of_networks_are_told_of_a_pod() -> None:
    told = plan_of(config(uid="u1"), "", CriSettings()).spec.cni_args
    assert told == {"K8S_POD_NAMESPACE": "default", "K8S_POD_NAME": "web", "K8S_POD_UID": "u1"}
    with pytest.raises(InvalidArgument, match="have no ';' and no '='"):
        plan_of(config("web;K8S_POD_NAME=x"), "", CriSettings())
