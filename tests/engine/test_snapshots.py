# SPDX-License-Identifier: Apache-2.0
"""Snapshots and forks over fakes: what is said, what is theirs, and what is left."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.engine import memory_files
from hypercontainer.engine.forks.saved import Saved, open_saved
from hypercontainer.engine.plan import levels
from hypercontainer.engine.principal import asked_by
from hypercontainer.errors import (
    Conflict,
    InvalidArgument,
    InvalidState,
    NoSpace,
    NotFound,
    PermissionDenied,
    Unavailable,
    Unsupported,
)
from hypercontainer.guest.fake import FakeGuest
from hypercontainer.hypervisor.fake_saving import SavingDriver, SavingMachine
from hypercontainer.model.deployments import DeploymentInfo, DeploymentRequest
from hypercontainer.model.network import NetworkRequest, NetworkSpec
from hypercontainer.model.pods import PodSpec, VolumeRequest
from hypercontainer.model.principal import Principal
from hypercontainer.model.snapshots import ForkRequest, RestoreRequest, SnapshotRequest
from hypercontainer.model.specs import ContainerSpec, Dependency, Mount, PortMapping
from hypercontainer.protocol.constants import Capability

from .scenes import plan, spec
from .stage import IMAGE, Stage


@pytest.fixture
def saving(act: Any) -> Callable[..., None]:
    """Play a scenario on a host whose driver saves machines."""
    return lambda scenario, **how: act(scenario, factory=True, **how)


async def snapshot(s: Stage, pod: str = "a", name: str = "shot") -> None:
    await s.call(s.engine.snapshots.create(SnapshotRequest(pod=pod, name=name)))


async def fork(s: Stage, pod: str = "a", **how: Any) -> list[str]:
    """Ids of the first containers."""
    made = await s.call(s.engine.snapshots.fork(pod, ForkRequest(**how)))
    return [s.engine.registry.members(pod.id)[0].id for pod in made]


def test_what_a_fork_has_of_its_own(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        ports = [PortMapping(container_port=80, host_port=8080)]
        await s.run("a", "sleep", "1000", mounts=[Mount(target="/d", source="vol")], ports=ports)
        await asyncio.sleep(100)
        (id_,) = await fork(s, name="b")
        parent, child = s.engine.registry.container("a"), s.engine.registry.container(id_)
        assert child.name == "b" and child.state.status == "running" and child.hostname == id_[:12]
        assert child.state.started_at > parent.state.started_at  # it is up since it is there
        assert child.ports[0].host_port not in (0, 8080) and parent.ports[0].host_port == 8080
        assert child.mounts[0].anonymous and child.mounts[0].volume != "vol"
        guest = s.guest(s.machine("b"))
        assert guest.hostname == child.hostname and guest.severed == 1 and list(guest.containers) == [id_[:12]]
        assert s.guest(s.machine("a")).reports and not guest.reports and s.guest(s.machine("a")).severed == 0
        assert all(c.frozen is None for m in ("a", "b") for c in s.guest(s.machine(m)).containers.values())
        await s.call(s.engine.containers.remove("b", force=True, volumes=True))
        assert [v.name for v in s.engine.registry.volumes()] == ["vol"]

    saving(scenario)


def test_a_fork_of_a_replica_is_none(saving: Any) -> None:
    """It is no run of a job, either."""

    async def scenario(s: Stage) -> None:
        async def create() -> DeploymentInfo:
            spec = ContainerSpec(image=IMAGE, command=["sleep", "1000000"], labels={"a": "b"})
            return s.engine.deployments.create(DeploymentRequest(name="web", container=spec))

        await s.call(create())
        await asyncio.sleep(5)
        (replica,) = s.engine.deployments.info("web").members
        await fork(s, replica.name, name="mine")
        await asyncio.sleep(20)
        info, copy = s.engine.deployments.info("web"), s.engine.registry.container("mine")
        assert [m.container for m in info.members] == [replica.container] and info.state == "complete"
        assert copy.state.status == "running" and copy.spec.labels == {"a": "b"}

    saving(scenario, network="bridge")


def test_a_fork_is_a_container_as_others(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        await fork(s, name="b")
        await s.call(s.engine.containers.stop("b", 0))
        await s.call(s.engine.containers.start("b"))
        assert s.status("b") == "running"
        await fork(s, "b", count=2, name="c")
        assert {s.status(n) for n in ("a", "b", "c-1", "c-2")} == {"running"}
        await s.close(keep_running=True)
        await s.open()
        assert {s.status(n) for n in ("a", "b", "c-1", "c-2")} == {"running"}

    saving(scenario)


def test_a_snapshot_keeps_its_image_and_outlives_its_pod(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        await snapshot(s)
        await s.call(s.engine.containers.remove("a", force=True))
        with pytest.raises(Conflict, match="in use by snapshot shot"):
            await s.call(s.engine.images.remove("box"))
        await s.close()
        await s.open()
        await s.call(s.engine.snapshots.restore("shot", RestoreRequest(name="again")))
        assert s.status("again") == "running"
        await s.call(s.engine.snapshots.remove("shot"))
        assert s.engine.snapshots.all() == [] and s.status("again") == "running"

    saving(scenario)


def test_of_the_next_one_only_what_is_another_is_stored(saving: Any) -> None:
    """Whether it is of the same pod, or of one that went on from it; each is whole when others are removed."""

    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000", mounts=[Mount(target="/d", source="vol")])
        await snapshot(s, name="first")
        await s.call(s.engine.snapshots.restore("first", RestoreRequest(name="b")))
        await fork(s, "b", name="c")
        for pod, name in (("a", "second"), ("b", "third"), ("c", "fourth"), ("a", "fifth")):
            await snapshot(s, pod, name)
        of = {i.name: i for i in s.engine.snapshots.all()}
        parents = {n: next((o for o in of if of[o].id == i.parent), "") for n, i in of.items()}
        assert parents == {"first": "", "second": "first", "third": "first", "fourth": "first", "fifth": "second"}
        directory = s.paths.snapshots / of["fifth"].id
        assert (directory / "memory.2").samefile(s.paths.snapshots / of["first"].id / "memory")
        assert len([*directory.glob("disk-*.img.1")]) == 2
        await s.call(s.engine.snapshots.remove("first"))
        await s.call(s.engine.snapshots.remove("second"))
        await s.close()
        await s.open()
        assert s.engine.snapshots.info("third").parent == s.engine.snapshots.info("fifth").parent == ""
        await s.call(s.engine.snapshots.restore("fifth", RestoreRequest(name="again")))
        assert s.status("again") == "running"
        for name in ("third", "fourth", "fifth"):
            await s.call(s.engine.snapshots.remove(name))

    saving(scenario)


def test_one_that_does_not_fit_any_more(saving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        await snapshot(s)
        monkeypatch.setattr(SavingDriver, "version", "2")
        with pytest.raises(InvalidState, match="does not fit this host any more"):
            await s.call(s.engine.snapshots.restore("shot", RestoreRequest()))

    saving(scenario)


def test_one_that_cannot_be_read_is_told_by_doctor(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        await snapshot(s)
        (directory,) = s.paths.snapshots.iterdir()
        document = (directory / "snapshot.json").read_bytes()
        (directory / "snapshot.json").write_bytes(document[:100])
        await s.close()
        await s.open()
        assert s.engine.snapshots.all() == []
        (check,) = [c for c in await s.engine.doctor() if c.name == "snapshots"]
        assert (check.status, check.hint) == ("warn", f"remove {directory}")
        assert f"the snapshot in {directory} cannot be read" in check.found
        (directory / "snapshot.json").write_bytes(document)
        await s.close()
        await s.open()
        assert [c for c in await s.engine.doctor() if c.name == "snapshots"] == []
        await s.call(s.engine.snapshots.remove("shot"))

    saving(scenario)


def test_one_whose_memory_is_another_is_refused(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        await snapshot(s)
        (directory,) = s.paths.snapshots.iterdir()
        with open(directory / "memory", "r+b") as f:
            f.write(b"x")
        with pytest.raises(Exception, match="is damaged"):
            await s.call(s.engine.snapshots.restore("shot", RestoreRequest()))
        assert [c.name for c in s.engine.registry.containers()] == ["a"]

    saving(scenario)


def test_a_full_disk_is_a_sentence(saving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")

        def full(found: Any, target: int | None) -> str:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patched:
            patched.setattr(memory_files, "copy_pages", full)
            with pytest.raises(NoSpace, match="no space left on the disk of"):
                await snapshot(s)
        assert s.engine.snapshots.all() == [] and list(s.paths.snapshots.iterdir()) == []
        await snapshot(s)

    saving(scenario)


def test_names(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        await s.create("b")
        await snapshot(s)
        with pytest.raises(Conflict, match="taken by another snapshot"):
            await snapshot(s)
        with pytest.raises(InvalidArgument, match="invalid snapshot name"):
            await snapshot(s, name="no/name")
        with pytest.raises(Conflict, match="'b' is taken"):
            await fork(s, name="b")
        with pytest.raises(Conflict, match="'b' is taken"):
            await s.call(s.engine.snapshots.restore("shot", RestoreRequest(name="b")))
        with pytest.raises(NotFound, match="no such snapshot"):
            await s.call(s.engine.snapshots.restore("other", RestoreRequest()))
        (named,) = await fork(s)
        assert s.engine.registry.container(named).name.startswith("a-")
        with pytest.raises(InvalidState, match="b is not running"):
            await fork(s, "b")

    saving(scenario)


def test_snapshots_are_their_tenants(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        await snapshot(s)
        with asked_by(Principal("someone", "other")):
            assert s.engine.snapshots.all() == []
            with pytest.raises(NotFound, match="no such snapshot"):
                s.engine.snapshots.info("shot")
            with pytest.raises(NotFound):
                await s.engine.snapshots.remove("shot")
            with pytest.raises(NotFound):
                await s.engine.snapshots.restore("shot", RestoreRequest())
        assert [i.name for i in s.engine.snapshots.all()] == ["shot"]

    saving(scenario)


def test_containers_that_have_ended_come_along(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan(spec("one", "sleep", "1000"), spec("two", "true"))))
        await s.call(s.engine.pods.start("pod"))
        await s.call(s.engine.containers.wait("two"))
        (made,) = await s.call(s.engine.snapshots.fork("pod", ForkRequest(name="q")))
        assert [(c.name, str(c.state.status)) for c in s.engine.registry.members(made.id)] == [
            ("q-one", "running"),
            ("q-two", "exited"),
        ]
        await s.call(s.engine.containers.start("q-two"))
        await s.call(s.engine.pods.remove("q", force=True))

    saving(scenario)


def test_what_cannot_be_saved(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.call(s.engine.networks.create(NetworkSpec(name="net", subnets=["10.77.0.0/24"])))
        await s.run("a", "sleep", "1000", network="bridge")
        await s.call(s.engine.connect("a", NetworkRequest(name="net")))
        with pytest.raises(Unsupported, match="joined or left networks"):
            await fork(s)
        await s.run("c", "sleep", "1000")
        await s.call(s.engine.containers.pause("c"))
        (id_,) = await fork(s, "c")
        assert s.status(id_) == "paused"

    saving(scenario)


def test_an_image_as_a_volume_is_not_saved(saving: Any) -> None:
    """Neither by a fork nor by a snapshot; without it both are made, and meanwhile the pod goes on."""

    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000", mounts=[Mount(target="/m", type="image", source=IMAGE)])
        for verb in (fork, snapshot):
            with pytest.raises(Unsupported, match=r"pod a has an image as a volume \(sha256:\w+\), which is not saved"):
                await verb(s)
        assert s.status("a") == "running" and not s.engine.snapshots.all()
        assert len(s.host.machines) == 1
        await s.run("b", "sleep", "1000")
        await snapshot(s, "b")

    saving(scenario)


def test_a_guest_that_is_too_old(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        boots = s._guest

        def older(config: Any) -> FakeGuest:
            guest = boots(config)
            guest.capabilities = Capability.FREEZE
            return guest

        s.host._guest = older
        await s.run("a", "sleep", "1000")
        with pytest.raises(Unsupported, match="does not support saving a pod while it runs"):
            await fork(s)

    saving(scenario)


async def meanwhile(
    s: Stage, monkeypatch: pytest.MonkeyPatch, what: Coroutine[Any, Any, Any], pod: str = "pod", lasts: float = 1
) -> asyncio.Task[Any]:  # fmt: skip
    """Fork a pod, and let that happen while its machine is saved; when it is about to be over."""
    saves, begun = SavingMachine.save, []

    async def save(machine: SavingMachine, state: int) -> None:
        begun.append(asyncio.create_task(what))
        await asyncio.sleep(lasts)  # of the virtual clock
        await saves(machine, state)

    monkeypatch.setattr(SavingMachine, "save", save)
    try:
        await fork(s, pod, name="f")
    finally:
        await asyncio.wait(begun)
        monkeypatch.setattr(SavingMachine, "save", saves)
    return begun[0]


def test_a_container_that_is_paused_meanwhile_stays_so(saving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        (await meanwhile(s, monkeypatch, s.engine.containers.pause("a"), "a")).result()
        assert s.status("a") == "paused" and s.status("f") == "running"
        frozen = {m: [c.frozen for c in s.guest(s.machine(m)).containers.values()] for m in ("a", "f")}
        assert frozen["a"] != [None] and frozen["f"] == [None]

    saving(scenario)


def test_a_pod_that_is_paused_meanwhile_stays_so(saving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan(spec("one", "sleep", "1000"))))
        await s.call(s.engine.pods.start("pod"))
        (await meanwhile(s, monkeypatch, s.engine.pods.pause("pod"))).result()
        assert s.engine.registry.pod("pod").status == "paused" and s.machine("one").paused

    saving(scenario)


def test_a_container_that_ends_meanwhile_has_ended_in_the_fork(saving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan(spec("one", "sleep", "1000"), spec("two", "sleep", "1000"))))
        await s.call(s.engine.pods.start("pod"))
        checkpoint = SavingDriver.checkpoint

        async def late(*args: Any) -> Any:
            await s.engine.containers.kill("two", "KILL")
            await s.engine.containers.wait("two")
            return await checkpoint(*args)

        monkeypatch.setattr(SavingDriver, "checkpoint", late)
        await fork(s, "pod", name="f")
        assert (s.status("f-one"), s.status("f-two")) == ("running", "exited")

    saving(scenario)


def test_a_container_that_is_started_meanwhile(saving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would run in the fork before the network's rules are in force there."""

    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan(spec("one", "sleep", "1000"), spec("two", "sleep", "1000"))))
        await s.call(s.engine.pods.start("pod"))
        await s.call(s.engine.containers.stop("two", 0))
        with pytest.raises(InvalidState, match="two (was|is being) started"):
            await meanwhile(s, monkeypatch, s.engine.containers.start("two"))
        assert s.status("two") == "running" and not list(s.paths.snapshots.iterdir())

    saving(scenario)


def test_two_of_one_name_at_once(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        await s.run("b", "sleep", "1000")
        came = await asyncio.gather(snapshot(s, "a"), snapshot(s, "b"), return_exceptions=True)
        assert [type(c) for c in came] == [type(None), Conflict]
        assert s.engine.snapshots.info("shot").pod == "a"

    saving(scenario)


def test_one_that_is_being_restored_stays(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        await snapshot(s)
        restoring = asyncio.ensure_future(s.call(s.engine.snapshots.restore("shot", RestoreRequest(name="again"))))
        await asyncio.sleep(0)
        with pytest.raises(Conflict, match="is being restored"):
            await s.call(s.engine.snapshots.remove("shot"))
        await restoring
        await s.call(s.engine.snapshots.remove("shot"))
        assert s.status("again") == "running"

    saving(scenario)


def test_who_goes_away_leaves_no_memory_open(saving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled when what was saved has just been read."""

    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        await snapshot(s)
        reads, opened = open_saved, threading.Event()

        def read(*args: Any) -> Saved:
            found = reads(*args)
            opened.set()
            return found

        monkeypatch.setattr("hypercontainer.engine.forks.snapshots.open_saved", read)
        before = memories()
        restoring = asyncio.ensure_future(s.engine.snapshots.restore("shot", RestoreRequest()))
        while not opened.is_set():
            await asyncio.sleep(0)
        restoring.cancel()
        with pytest.raises(asyncio.CancelledError):
            await restoring
        assert memories() == before

    saving(scenario)


def memories() -> int:
    """Memory files that this process has open."""
    return sum("memfd:hyper-memory" in os.readlink(p) for p in Path("/proc/self/fd").iterdir() if p.is_symlink())


def test_volumes_of_a_pod_of_several_go_with_it(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        mounts = [Mount(target="/d", source="vol")]
        volumes = [VolumeRequest(name="data", source="other", format="volume")]
        one = spec("one", "sleep", "1000", mounts=mounts)
        two = spec("two", "sleep", "1000", mounts=[Mount(target="/d", source="data")])
        await s.call(s.engine.pods.create(plan(one, two, volumes=volumes)))
        await s.call(s.engine.pods.start("pod"))
        await fork(s, "pod", name="f")
        assert [v.name for v in s.engine.registry.volumes()] == ["other", "vol"]
        copies = [Path(v.source) for v in s.engine.registry.pod("f").volumes]
        assert len(copies) == 2 and all(c.exists() and s.paths.root / "pods" in c.parents for c in copies)
        await s.call(s.engine.pods.stop("f", 0))
        await s.call(s.engine.pods.start("f"))
        await s.call(s.engine.pods.remove("f", force=True))
        assert not any(c.exists() for c in copies)
        assert [v.name for v in s.engine.registry.volumes()] == ["other", "vol"]

    saving(scenario)


def test_a_host_name_that_was_chosen_stays(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan(spec("one", "sleep", "1000"), hostname="chosen")))
        await s.call(s.engine.pods.start("pod"))
        await fork(s, "pod", name="f")
        assert s.engine.registry.pod("f").hostname == s.guest(s.machine("f-one")).hostname == "chosen"

    saving(scenario)


def test_a_kubelet_does_not_know_a_fork_of_its_pod(saving: Any) -> None:
    """It would take it for a second sandbox of the same pod, and end one of them."""

    async def scenario(s: Stage) -> None:
        given = {"cri": {"name": "p"}}
        await s.call(s.engine.pods.create(plan(spec("one", "sleep", "1", given=given), spec=PodSpec(given=given))))
        await s.call(s.engine.pods.start("pod"))
        await fork(s, "pod", name="f")
        assert s.engine.registry.pod("pod").spec.given == given
        assert s.engine.registry.pod("f").spec.given == s.engine.registry.container("f-one").spec.given == {}

    saving(scenario)


def test_what_takes_the_scope_host_takes_it_of_a_fork(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        disk = s.paths.root / "disk.img"
        disk.write_bytes(bytes(4096))
        volumes = [VolumeRequest(name="d", source=str(disk), read_only=True)]
        one = spec("one", "sleep", "1000", mounts=[Mount(target="/d", source="d")])
        await s.call(s.engine.pods.create(plan(one, volumes=volumes)))
        await s.call(s.engine.pods.start("pod"))
        await snapshot(s, "pod")
        with asked_by(Principal("token:x", scopes=frozenset({"operate"}))):
            for asked in (
                s.engine.snapshots.fork("pod", ForkRequest()),
                s.engine.snapshots.restore("shot", RestoreRequest()),
            ):
                with pytest.raises(PermissionDenied, match="takes the scope `host`"):
                    await asked
        await fork(s, "pod")

    saving(scenario)


def test_names_of_the_parent_in_its_networks_stay_the_parents(saving: Any) -> None:
    """Else who asks there for an alias gets the fork every other time."""

    async def scenario(s: Stage) -> None:
        await s.call(s.engine.networks.create(NetworkSpec(name="net", subnets=["10.77.0.0/24"])))
        networks = [NetworkRequest(name="net", aliases=["db"]), NetworkRequest(name="bridge", aliases=["store"])]
        await s.run("a", "sleep", "1000", networks=networks, aliases=["shop"])
        await fork(s, name="f")
        assert [a.aliases for a in s.engine.registry.pod("a").attachments] == [["db", "shop"], ["store", "shop"]]
        assert [a.aliases for a in s.engine.registry.pod("f").attachments] == [[], []]

    saving(scenario)


def test_containers_of_a_fork_know_each_other_by_their_names(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        one = spec("one", "sleep", "1000")
        two = spec("two", "sleep", "1000", depends_on=[Dependency(container="one")])
        await s.call(s.engine.pods.create(plan(one, two)))
        await s.call(s.engine.pods.start("pod"))
        await fork(s, "pod", name="f")
        members = s.engine.registry.members(s.engine.registry.pod("f").id)
        assert [[c.name for c in level] for level in levels(members)] == [["f-one"], ["f-two"]]
        (hosts, *_) = [c.files["/etc/hosts"] for c in s.guest(s.machine("f-one")).containers.values()]
        assert {"one", "two", "f-one", "f-two"} <= set(hosts.decode().split())

    saving(scenario)


def test_its_image_is_not_to_be_had_back(saving: Any) -> None:
    """`rmi` refuses it, so `system df` does not call it reclaimable."""

    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        await snapshot(s)
        await s.call(s.engine.containers.remove("a", force=True))
        assert (await s.call(s.engine.usage.measure())).images_reclaimable == 0
        await s.call(s.engine.snapshots.remove("shot"))
        assert (await s.call(s.engine.usage.measure())).images_reclaimable > 0

    saving(scenario)


def test_a_daemon_that_dies_while_it_saves(saving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stood still for it goes on when the next one comes."""

    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        saves, stands_still = SavingMachine.save, asyncio.Event()

        async def save(machine: SavingMachine, state: int) -> None:
            stands_still.set()
            await asyncio.sleep(3600)  # of the virtual clock

        monkeypatch.setattr(SavingMachine, "save", save)
        assert s.daemon
        forking = s.daemon.call(s.engine.snapshots.fork("a", ForkRequest()))
        await stands_still.wait()
        (container,) = s.guest(s.machine("a")).containers.values()
        assert s.machine("a").paused and container.frozen and not forking.done()
        machine = s.machine("a")
        s.kill()
        monkeypatch.setattr(SavingMachine, "save", saves)
        await s.open()
        assert s.status("a") == "running"
        assert s.machine("a") is machine and not machine.paused and container.frozen is None
        await fork(s, name="f")

    saving(scenario)


def test_a_pod_that_is_removed_while_it_is_saved(saving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        with pytest.raises(Unavailable, match="pod a ended while it was saved"):
            await meanwhile(s, monkeypatch, s.engine.containers.remove("a", force=True), "a", lasts=10)
        assert not list(s.paths.snapshots.iterdir()) and s.engine.registry.pods() == []

    saving(scenario)
