# SPDX-License-Identifier: Apache-2.0
"""Verbs that look, and those that change what a container or a pod has: volumes, networks, services, secrets."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hypercontainer.errors import Conflict, HyperError, InvalidArgument, InvalidState, NotFound, Unsupported
from hypercontainer.model.network import NetworkRequest, NetworkSpec
from hypercontainer.model.pods import (
    PodPlan,
    PodSpec,
    Service,
    ServiceBackend,
    VolumeRequest,
    VolumeSpec,
    WhiteLists,
)
from hypercontainer.model.specs import (
    ContainerSpec,
    Dependency,
    ExecSpec,
    HealthCheck,
    InjectedFile,
    Mount,
    PortMapping,
    SecretMount,
    TcpCheck,
)

from .scenes import plan, spec
from .stage import IMAGE, Stage

PORT = PortMapping(container_port=80)


async def packed(**files: bytes) -> AsyncIterator[bytes]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    yield out.getvalue()


async def pod(s: Stage, *containers: ContainerSpec, start: bool = True, **how: Any) -> None:
    await s.call(s.engine.pods.create(plan(*containers, **how)))
    if start:
        await s.call(s.engine.pods.start("pod"))


# -- looking ------------------------------------------------------------------------


def test_top_and_stats_tell_what_runs_of_whom(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await pod(s, spec("a", "sleep", "100"), spec("b", "sleep", "200"))
        monitor = s.engine.monitor
        assert [(p.container, p.command) for p in await s.call(monitor.top("a"))] == [("a", "sleep 100")]
        everybody = {(p.container, p.command) for p in await s.call(monitor.pod_top("pod"))}
        assert {("a", "sleep 100"), ("b", "sleep 200")} <= everybody
        one = await s.call(monitor.stats("a"))
        assert (one.name, one.memory, one.pids, one.memory_limit) == ("a", 1 << 20, 1, 256 << 20)
        assert [x.name for x in await s.call(monitor.pod_stats("pod"))] == ["a", "b"]
        assert {c.name for c in monitor.running()} == {"a", "b"}
        await s.call(s.engine.pods.stop("pod", 0))
        for verb in (monitor.top("a"), monitor.pod_top("pod"), monitor.stats("a"), monitor.pod_stats("pod")):
            with pytest.raises(InvalidState):
                await s.call(verb)

    act(scenario)


def test_what_there_is_is_listed(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await pod(s, spec("a"), spec=PodSpec(ports=[PORT]), labels={"x": "1"})
        await s.run("b")
        info = await s.call(s.engine.info())
        assert (info.pods, info.containers, info.running, info.images, info.driver) == (2, 2, 2, 1, "fake 1")
        assert s.engine.version().qemu == "1" and s.engine.longest_grace() == 10
        listed = {p.name: p for p in s.engine.pods.all()}
        assert listed["pod"].containers == ["a"] and not listed["pod"].implicit and listed["b"].implicit
        assert s.engine.pods.details("pod").containers[0].name == "a"
        assert [i.names for i in s.engine.images.describe_all()] == [[IMAGE]]
        with pytest.raises(InvalidState, match="is a container of its own"):
            s.engine.pods.explicit("b")
        with pytest.raises(Conflict):
            s.engine.pods.set_labels("pod", {"x": "2"}, override=False)
        assert s.engine.pods.set_labels("pod", {"x": "2"}, override=True) == {"x": "2"}
        checks = {c.name: c.status for c in await s.call(s.engine.doctor(probe=True))}
        assert "fail" not in {checks.get("state"), checks.get("files")}

    act(scenario)


def test_a_log_is_read_from_its_end_and_followed(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "cat", stdin=True)
        handle = s.engine.containers.supervisor(s.engine.registry.container("a")).fan_out.handle
        assert handle
        for n in range(5):
            await s.call(handle.write_stdin(f"{n}\n".encode()))
        await asyncio.sleep(1)

        async def lines(tail: int | None, follow: bool, since: str = "", until: str = "") -> list[str]:
            found = s.engine.logs("a", tail=tail, since=since, until=until, follow=follow)
            return [r.log async for records in found for r in records]

        assert await s.call(lines(2, False)) == ["3\n", "4\n"]
        assert await s.call(lines(0, False)) == []
        assert await s.call(lines(None, False, until="2000-01-01T00:00:00Z")) == []
        assert len(await s.call(lines(None, False, since="2000-01-01T00:00:00Z"))) == 5
        assert s.daemon
        follows = s.daemon.call(lines(1, True))
        await asyncio.sleep(1)
        s.engine.containers.reopen_log("a")
        await s.call(handle.write_stdin(b"more\n"))
        handle.close_stdin()
        assert await follows == ["4\n", "more\n"]

    act(scenario)


def test_events_are_followed_from_any_time(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        events = s.engine.events

        async def followed(since: int | None, until: int | None = None) -> list[str]:
            found = []
            async for event in events.follow(since, until):
                found.append(event.action)
                if event.action == "destroy":
                    break
            return found

        assert s.daemon
        present = s.daemon.call(followed(None))
        past = s.daemon.call(followed(0))
        await s.run("a", "true")
        await s.call(s.engine.containers.wait("a"))
        await s.call(s.engine.containers.remove("a", force=True))
        told = await present
        assert told == await past and told[0] == "create" and {"start", "die"} <= set(told)
        first = next(events.past())
        assert [e.action for e in events.past(until=first.time_nano)] == [first.action]
        assert await s.call(followed(0, first.time_nano)) == [first.action]

    act(scenario)


# -- files --------------------------------------------------------------------------


def test_files_go_in_and_come_out(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a")
        archives = s.engine.archives
        await s.call(archives.write("a", "/srv", packed(x=b"hello", y=b"1")))
        found = await s.call(archives.stat("a", "/srv/x"))
        assert (found.name, found.size, found.is_dir) == ("x", 5, False)

        async def read(chunks: AsyncIterator[bytes]) -> dict[str, bytes]:
            data = b"".join([c async for c in chunks])
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                return {m.name: f.read() for m in archive if (f := archive.extractfile(m))}

        assert await s.call(read(archives.read("a", "/srv", follow=True))) == {"x": b"hello", "y": b"1"}
        assert await s.call(read(archives.export("a"))) == {}
        assert await s.call(archives.changes("a")) == []
        with pytest.raises(HyperError):
            await s.call(archives.stat("a", "/nothing"))
        for path in ("", "a\0b"):
            with pytest.raises(InvalidArgument):
                await s.call(archives.stat("a", path))

    act(scenario)


def test_a_container_has_the_files_that_are_put_into_it(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", files=[InjectedFile(target="/etc/x", content=b"1"), InjectedFile(target="/y", content=b"")])
        assert (await s.call(s.engine.archives.stat("a", "/etc/x"))).size == 1

    act(scenario)


# -- further processes ----------------------------------------------------------------


def test_a_further_process_is_resized_and_ended(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a")
        execs = s.engine.execs
        exec_ = execs.create("a", ExecSpec(command=["sleep", "100"], tty=True))
        await s.call(execs.signal(exec_.id, "TERM"))  # it has not begun: there is nothing to end
        await s.call(execs.start(exec_, (24, 80)))
        assert execs.get(exec_.id).info().running
        await s.call(execs.resize(exec_.id, 30, 100))
        with pytest.raises(HyperError):
            await s.call(execs.start(exec_))
        await s.call(execs.signal(exec_.id, "KILL"))
        await s.call(exec_.ended.wait())
        assert exec_.exit_code == 137 and not exec_.info().running
        with pytest.raises(NotFound):
            execs.get("nobody")

    act(scenario)


# -- volumes, secrets ---------------------------------------------------------------------


def test_volumes_are_made_listed_and_removed(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        volumes = s.engine.volumes
        block = await s.call(volumes.create(VolumeSpec(name="block")))
        assert await s.call(volumes.create(VolumeSpec(name="block"))) == block  # as Docker does
        with pytest.raises(Conflict, match="exists and is different"):
            await s.call(volumes.create(VolumeSpec(name="block", driver="directory")))
        await s.call(volumes.create(VolumeSpec(name="dir", driver="directory")))
        unnamed = await s.call(volumes.create(VolumeSpec(driver="directory")))
        await s.run("a", mounts=[Mount(target="/x", source="block"), Mount(target="/t", type="tmpfs", size=4096)])
        assert {i.volume.name: i.used_by for i in await s.call(volumes.all())} == {
            "block": ["a"],
            "dir": [],
            unnamed.name: [],
        }
        with pytest.raises(Conflict, match="in use by a"):
            await s.call(volumes.remove("block"))
        assert (await s.call(volumes.prune())).removed == [unnamed.name]
        assert (await s.call(volumes.prune(everything=True))).removed == ["dir"]
        with pytest.raises(NotFound):
            await s.call(volumes.remove("dir"))
        await s.call(volumes.remove("dir", force=True))
        await s.call(s.engine.containers.remove("a", force=True))
        await s.call(volumes.remove("block"))
        assert not list(s.paths.volumes.iterdir())

    act(scenario)


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (VolumeRequest(name="v"), "disk"),
        (VolumeRequest(name="v", size=32 << 20, mode=0o750, gid=5), "disk"),
        (VolumeRequest(name="v", format="qcow2"), "disk"),
        (VolumeRequest(name="v", format="tmpfs", mode=0o700), "tmpfs"),
        (VolumeRequest(name="v", format="volume", source="named"), "disk"),
        (VolumeRequest(name="v", format="nas", source="192.0.2.5:/path"), "nfs"),
    ],
)
def test_a_pod_has_volumes_of_every_kind(act: Any, request_: VolumeRequest, kind: str) -> None:
    async def scenario(s: Stage) -> None:
        mount = Mount(target="/v", source="v")
        await pod(s, spec("a", mounts=[mount]), spec("b", mounts=[mount]), volumes=[request_])
        assert [v.kind for v in s.engine.registry.pod("pod").volumes] == [kind]
        assert s.status("b") == "running"
        await s.call(s.engine.pods.stop("pod", 0))
        await s.call(s.engine.pods.start("pod"))
        await s.call(s.engine.pods.remove("pod", force=True))
        await s.call(s.engine.volumes.prune(everything=True))

    act(scenario)


@pytest.mark.parametrize("format_", ["vfs", ""])
def test_a_directory_of_this_host_where_they_are_switched_off_ends_the_start(act: Any, format_: Any) -> None:
    async def scenario(s: Stage) -> None:
        volume = VolumeRequest(name="v", format=format_, source="/etc")
        await pod(s, spec("a", mounts=[Mount(target="/v", source="v")]), volumes=[volume], start=False)
        with pytest.raises(Unsupported, match="directories of the host are switched off"):
            await s.call(s.engine.pods.start("pod"))
        assert s.host.launched == 0

    act(scenario)


@pytest.mark.parametrize(
    "wrong",
    [
        [VolumeRequest(name="v"), VolumeRequest(name="v")],
        [VolumeRequest(name="v", format="nas", source="/path")],
        [VolumeRequest(name="v", format="rbd", source="pool/image")],
        [VolumeRequest(name="v", source="/nothing/such")],
        [VolumeRequest(name="../v")],
    ],
)
def test_volumes_that_cannot_be_leave_nothing(act: Any, wrong: list[VolumeRequest]) -> None:
    async def scenario(s: Stage) -> None:
        with pytest.raises(HyperError):
            await s.call(s.engine.pods.create(plan(spec("a"), volumes=wrong)))
        assert s.engine.registry.pods() == []

    act(scenario)


def test_secrets_are_encrypted_here_and_files_there(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        mount = SecretMount(secret="key", target="/run/key")
        await pod(s, spec("a", secrets=[mount]), secrets={"key": b"open sesame"}, spec=PodSpec(secrets=["key"]))
        assert s.status("a") == "running"
        kept = [p.read_bytes() for p in s.paths.root.glob("pods/*/secrets/*")]
        assert len(kept) == 1 and b"sesame" not in kept[0]
        with pytest.raises(HyperError):
            await s.call(s.engine.pods.create(PodPlan(name="q", containers=[spec("c", secrets=[mount])])))

    act(scenario)


# -- networks, ports, services --------------------------------------------------------------


def test_networks_are_listed_and_go_when_nobody_is_in_them(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        networks = s.engine.networks
        await s.call(networks.create(NetworkSpec(name="net", subnets=["10.77.0.0/24"], ipv6=True)))
        await s.call(networks.create(NetworkSpec(name="other")))
        with pytest.raises(Conflict):
            await s.call(networks.create(NetworkSpec(name="net")))
        await s.run("a", networks=[NetworkRequest(name="net", ip="10.77.0.9", aliases=["x"])])
        assert s.engine.registry.pod(s.engine.registry.container("a").pod).attachments[0].ip == "10.77.0.9"
        with pytest.raises(HyperError):
            await s.create("b", networks=[NetworkRequest(name="net", ip="10.77.0.9")])
        listed = {i.network.name: i for i in networks.all()}
        assert {"net", "other"} <= set(listed)
        with pytest.raises(Conflict):
            await s.call(networks.remove("net"))
        assert (await s.call(networks.prune())).removed == ["other"]
        await s.call(s.engine.containers.remove("a", force=True))
        await s.call(networks.remove("net"))
        with pytest.raises(NotFound):
            networks.find("net")

    act(scenario, network="bridge")


@pytest.mark.parametrize("network", ["user", "bridge"])
def test_ports_come_and_go_while_a_pod_runs(act: Any, network: str) -> None:
    async def scenario(s: Stage) -> None:
        await pod(s, spec("a"))
        added = await s.call(s.engine.pods.add_ports("pod", [PORT, PortMapping(container_port=53, protocol="udp")]))
        assert [(p.container_port, p.protocol) for p in added] == [(80, "tcp"), (53, "udp")]
        with pytest.raises(Conflict):
            await s.call(s.engine.pods.add_ports("pod", [PortMapping(container_port=1, host_port=added[0].host_port)]))
        left = await s.call(s.engine.pods.remove_ports("pod", [PORT]))
        assert [p.container_port for p in left] == [53]
        with pytest.raises(InvalidState, match="does not publish 80/tcp"):
            await s.call(s.engine.pods.remove_ports("pod", [PORT]))
        await s.call(s.engine.pods.stop("pod", 0))
        assert [p.container_port for p in await s.call(s.engine.pods.add_ports("pod", [PORT]))][-1] == 80

    act(scenario, network=network)


def service(*hosts: str, ip: str = "10.254.0.1") -> Service:
    return Service(service_ip=ip, service_port=80, hosts=[ServiceBackend(host_ip=h, host_port=8080) for h in hosts])


def test_services_are_changed_while_a_pod_runs(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        lists = WhiteLists(internal_networks=["10.0.0.0/8"], external_networks=["192.168.0.0/16"])
        await pod(s, spec("a"), spec=PodSpec(services=[service("10.0.2.2")], white_lists=lists, ports=[PORT]))
        services = s.engine.services
        with pytest.raises(Conflict, match="exists already"):
            await s.call(services.add("pod", [service("10.0.2.3")]))
        await s.call(services.add("pod", [service("fd00::2", ip="fd00::1")]))
        assert len(services.of("pod")) == 2
        with pytest.raises(InvalidArgument, match="different IP versions"):
            await s.call(services.replace("pod", [service("fd00::2")]))
        with pytest.raises(Conflict, match="defined twice"):
            await s.call(services.replace("pod", [service(), service()]))
        assert len(await s.call(services.remove("pod", "10.254.0.1", 80, "tcp"))) == 1
        with pytest.raises(NotFound):
            await s.call(services.remove("pod", "10.254.0.1", 80, "tcp"))
        assert await s.call(services.replace("pod", [])) == []

    act(scenario)


# -- health, order of starts -------------------------------------------------------------------


def test_a_container_that_is_found_dead_is_started_again(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", liveness=HealthCheck(command=["false"], interval=5, retries=2, start_period=1))
        await asyncio.sleep(30)
        assert "liveness: failed" in [e.action for e in s.engine.events.past()]
        assert s.engine.registry.container("a").state.restart_count > 0

    act(scenario)


def test_a_check_that_takes_too_long_has_failed(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        check = HealthCheck(command=["sleep", "100"], interval=1, timeout=2, retries=1)
        await s.run("a", health=check)
        await asyncio.sleep(10)
        health = s.engine.registry.container("a").state.health
        assert health and health.status == "unhealthy"
        assert health.log[-1].output == "the check did not end within 2 s"

    act(scenario)


@pytest.mark.parametrize("tcp", [False, True])
def test_what_waits_for_a_healthy_one_starts_when_it_is(act: Any, tcp: bool) -> None:
    check = HealthCheck(tcp=TcpCheck(port=80)) if tcp else HealthCheck(command=["true"], start_period=10)

    async def scenario(s: Stage) -> None:
        waits = [Dependency(container="a", condition="healthy"), Dependency(container="c", condition="completed")]
        await pod(s, spec("a", health=check), spec("b", depends_on=waits), spec("c", "after", "1", "0"))
        assert (s.status("a"), s.status("b"), s.status("c")) == ("running", "running", "exited")

    act(scenario)


@pytest.mark.parametrize(
    ("other", "condition", "why"),
    [
        (spec("a", "exit", "3"), "completed", "it ended with status 3"),
        (spec("a"), "healthy", "it has no health check"),
        (spec("a", health=HealthCheck(command=["false"], interval=1, retries=1)), "healthy", "it is unhealthy"),
        (spec("a", "exit", "3", health=HealthCheck(command=["true"])), "healthy", "it ended with status 3"),
    ],
)
def test_what_waits_in_vain_does_not_start(act: Any, other: ContainerSpec, condition: Any, why: str) -> None:
    async def scenario(s: Stage) -> None:
        await pod(s, other, spec("b", depends_on=[Dependency(container="a", condition=condition)]), start=False)
        with pytest.raises(InvalidState, match=why):
            await s.call(s.engine.pods.start("pod"))

    act(scenario)


def test_an_init_container_that_fails_ends_the_start(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await pod(s, spec("i", "exit", "4", init=True), spec("a"), start=False)
        with pytest.raises(HyperError):
            await s.call(s.engine.pods.start("pod"))
        assert s.status("a") != "running"

    act(scenario)


# -- images ---------------------------------------------------------------------------------------


def test_an_image_goes_when_nobody_uses_it(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        images = s.engine.images
        await s.create("a")
        images.tag(IMAGE, "again")
        with pytest.raises(Conflict):
            await s.call(images.remove(images.describe(IMAGE).id))
        await s.call(images.remove("again"))
        await s.call(s.engine.containers.remove("a"))
        await s.call(images.remove(IMAGE))
        with pytest.raises(NotFound):
            await s.create("b")

    act(scenario, own_images=True)
