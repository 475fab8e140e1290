# SPDX-License-Identifier: Apache-2.0
"""Quotas: nobody has more than they may, however many ask at once, whatever fails, and after a death of the daemon."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from hypercontainer.engine.principal import asked_by
from hypercontainer.engine.quotas.holders import Holder
from hypercontainer.engine.quotas.requests import Requests
from hypercontainer.errors import HyperError, InvalidArgument, QuotaExceeded, TooManyRequests
from hypercontainer.hyperd import quota_config
from hypercontainer.model.cron import CronRequest
from hypercontainer.model.deployments import DeploymentRequest
from hypercontainer.model.network import NetworkSpec
from hypercontainer.model.pods import PodPlan, VolumeRequest, VolumeSpec
from hypercontainer.model.principal import Principal
from hypercontainer.model.quotas import Quota
from hypercontainer.model.security_groups import SecurityGroupSpec
from hypercontainer.model.snapshots import ForkRequest, SnapshotRequest
from hypercontainer.model.specs import GUEST_OVERHEAD, MIB, ContainerSpec, LogOptions, Mount, PortMapping, Resources
from hypercontainer.model.tenancy import OrganisationRequest, ProjectRequest
from hypercontainer.protocol.constants import Type

from .scenes import plan, spec
from .served import served
from .stage import IMAGE, SCRATCH, Stage

T = TypeVar("T")
ANN, BOB = Principal("token:ann"), Principal("token:bob")


async def by(s: Stage, who: Principal, work: Coroutine[Any, Any, T]) -> T:
    async def asked() -> T:
        with asked_by(who):
            return await work

    return await s.call(asked())


def limited(**quota: int) -> dict[str, Any]:
    """Settings by which each token may have so much."""
    return {"quotas": {"token:*": Quota(**quota)}}


def test_fifty_at_once_get_no_more_than_there_is(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        create = s.engine.containers.create
        asked = [by(s, ANN, create(spec(f"c{n}"))) for n in range(50)]
        ends = Counter(type(e).__name__ for e in await asyncio.gather(*asked, return_exceptions=True))
        assert ends == {"Container": 7, "QuotaExceeded": 43}
        await by(s, BOB, create(spec("bob")))  # has a quota of his own
        with pytest.raises(QuotaExceeded, match=r"token:ann may have 7 pods, has 7, and this takes 1 more"):
            await by(s, ANN, create(spec("more")))
        await s.call(
            s.engine.containers.remove(next(c.id for c in s.engine.registry.containers() if c.owner == ANN[0]))
        )
        await by(s, ANN, create(spec("more")))
        s.kill()
        await s.open()
        with pytest.raises(QuotaExceeded, match="7 pods"):
            await by(s, ANN, s.engine.containers.create(spec("again")))
        assert s.engine.registry.quotas.status(ANN).used.pods == 7

    act(scenario, **limited(pods=7))


def test_what_runs_counts_while_it_runs(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        start, big = s.engine.containers.start, {"resources": Resources(memory=100 * MIB)}
        for name in "abc":
            await by(s, ANN, s.engine.containers.create(spec(name, "sleep", "100", **big)))
        ends = await asyncio.gather(*(s.call(start(n)) for n in "abc"), return_exceptions=True)
        [error] = [e for e in ends if isinstance(e, Exception)]
        assert isinstance(error, QuotaExceeded), error
        assert "may have 300MiB of memory in pods that run, has 296MiB, and this takes 148MiB more" in str(error)
        refused = "abc"[next(i for i, e in enumerate(ends) if isinstance(e, Exception))]
        one, other = (n for n in "abc" if n != refused)
        s.kill()
        await s.open()
        with pytest.raises(QuotaExceeded):
            await s.call(s.engine.containers.start(refused))
        await s.call(s.engine.containers.kill(one, "KILL"))
        await s.call(s.engine.containers.wait(one))
        await s.call(s.engine.containers.start(refused))
        assert s.status(other) == "running"

    act(scenario, **limited(memory=300 * MIB))


def test_a_project_has_a_quota_for_all_that_are_in_it(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        tenancy = s.engine.tenancy
        tenancy.organisations.create(OrganisationRequest(name="blue"))
        web = tenancy.projects.create(ProjectRequest(name="web"))
        s.give_image(web.id)
        ann, bob = (Principal(name, web.id) for name in ("token:ann", "token:bob"))
        create = s.engine.containers.create
        await by(s, ann, create(spec("a")))
        tenancy.projects.limit("web", Quota(pods=2))
        await by(s, bob, create(spec("b")))
        for who in (ann, bob):
            with pytest.raises(QuotaExceeded, match="project web may have 2 pods, has 2"):
                await by(s, who, create(spec("c")))
        await s.call(create(spec("of-no-project")))
        s.kill()
        await s.open()
        with pytest.raises(QuotaExceeded, match="project web"):
            await by(s, ann, s.engine.containers.create(spec("c")))
        status = s.engine.registry.quotas.status(ann)
        assert (status.of, status.limits.pods, status.used.pods) == ("project web", 2, 2)
        s.engine.tenancy.projects.limit("web", Quota())
        await by(s, ann, s.engine.containers.create(spec("c")))

    act(scenario)


def test_a_start_that_fails_gives_back_what_it_took(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await by(s, ANN, s.engine.containers.create(spec("a", "sleep", "100")))
        quotas = s.engine.registry.quotas
        s.silent.add(Type.HELLO)
        with pytest.raises(HyperError, match="the guest"):
            await s.call(s.engine.containers.start("a"))
        s.silent.clear()
        assert quotas.status(ANN).used.vcpus == 0
        await s.call(s.engine.containers.start("a"))
        assert quotas.status(ANN).used.vcpus == 1
        await s.call(s.engine.containers.remove("a", force=True))
        assert quotas.status(ANN).used.pods == quotas.status(ANN).used.vcpus == 0

    act(scenario, **limited(vcpus=1))


def test_forks_and_snapshots_count(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await by(s, ANN, s.engine.containers.create(spec("a", "sleep", "100")))
        await s.call(s.engine.containers.start("a"))
        await by(s, ANN, s.engine.snapshots.fork("a", ForkRequest()))
        with pytest.raises(QuotaExceeded, match="may have 3 pods, has 2, and this takes 2 more"):
            await by(s, ANN, s.engine.snapshots.fork("a", ForkRequest(count=2)))
        assert len(s.engine.registry.pods()) == 2
        await by(s, ANN, s.engine.snapshots.create(SnapshotRequest(pod="a")))
        with pytest.raises(QuotaExceeded, match="1 snapshots, has 1"):
            await by(s, ANN, s.engine.snapshots.create(SnapshotRequest(pod="a")))

    act(scenario, factory=True, **limited(pods=3, snapshots=1))


def test_disks_volumes_and_networks(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        volumes, quotas = s.engine.volumes, s.engine.registry.quotas
        await by(s, ANN, volumes.create(VolumeSpec(name="v", size=2 * SCRATCH)))
        await by(s, ANN, s.engine.pods.create(plan(spec("one"), volumes=[VolumeRequest(name="d", size=SCRATCH)])))
        assert quotas.status(ANN).used.disk == 4 * SCRATCH
        with pytest.raises(QuotaExceeded, match=r"may have 80MiB of disk, has 64MiB, and this takes 32MiB more"):
            await by(s, ANN, volumes.create(VolumeSpec(name="w", size=2 * SCRATCH)))
        with pytest.raises(QuotaExceeded, match="has a quota of disk, and this would have no limit: make the volume a"):
            await by(s, ANN, volumes.create(VolumeSpec(name="w", driver="directory")))
        both = PodPlan(name="two", containers=[spec("two"), spec("three")])
        with pytest.raises(QuotaExceeded, match="disk"):
            await by(s, ANN, s.engine.pods.create(both))
        await by(s, ANN, volumes.create(VolumeSpec(name="w", size=SCRATCH)))
        with pytest.raises(QuotaExceeded, match="of disk|volumes"):
            await by(s, ANN, volumes.create(VolumeSpec(name="x", size=1)))
        await by(s, ANN, s.engine.networks.create(NetworkSpec(name="n")))
        with pytest.raises(QuotaExceeded, match="1 networks"):
            await by(s, ANN, s.engine.networks.create(NetworkSpec(name="m")))

    act(scenario, network="bridge", **limited(disk=5 * SCRATCH, networks=1))


def test_the_disks_of_a_fork_count(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        mounts = [Mount(target="/d", source="data"), Mount(target="/v", source="vol")]
        one, data = spec("one", "sleep", "100", mounts=mounts), VolumeRequest(name="data", size=SCRATCH)
        await by(s, ANN, s.engine.pods.create(plan(one, volumes=[data])))
        await s.call(s.engine.pods.start("pod"))
        used = s.engine.registry.quotas.status
        assert used(ANN).used.disk == 3 * SCRATCH
        await by(s, BOB, s.engine.snapshots.fork("pod", ForkRequest(name="f")))
        assert used(BOB).used.disk == 3 * SCRATCH  # also that of what was a volume, and is the fork's now
        with pytest.raises(QuotaExceeded, match="may have 80MiB of disk, has 48MiB, and this takes 48MiB more"):
            await by(s, ANN, s.engine.snapshots.fork("pod", ForkRequest(name="g")))
        assert used(ANN).used.disk == 3 * SCRATCH and len(s.engine.registry.pods()) == 2

    act(scenario, factory=True, **limited(disk=5 * SCRATCH))


def test_logs_count_where_they_are_larger_than_others(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        create, used = s.engine.containers.create, s.engine.registry.quotas.status
        await by(s, ANN, create(spec("a")))
        with pytest.raises(QuotaExceeded, match="of disk"):
            await by(s, ANN, create(spec("b", log=LogOptions(max_size=1 << 40))))
        size, files = s.engine.registry.quotas.log_limits
        log = LogOptions(max_size=size, max_files=files + 1)
        await by(s, ANN, create(spec("b", log=log)))
        assert used(ANN).used.disk == 2 * SCRATCH + size
        with pytest.raises(InvalidArgument, match="a log of 1000000000 files has too many"):
            await by(s, BOB, create(spec("c", log=LogOptions(max_size=1, max_files=10**9))))

    act(scenario, **limited(disk=1 << 30))


def test_starts_that_are_refused_are_nobodys(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        tenancy = s.engine.tenancy
        tenancy.organisations.create(OrganisationRequest(name="blue"))
        web = tenancy.projects.create(ProjectRequest(name="web"))
        s.give_image(web.id)
        tenancy.projects.limit("web", Quota(starts=3))
        ann, bob = (Principal(name, web.id) for name in ("token:ann", "token:bob"))
        for who, name in ((ann, "a"), (bob, "b")):
            await by(s, who, s.engine.containers.create(spec(name, "sleep", "100")))
        await by(s, ann, s.engine.containers.start("a"))
        for _ in range(5):
            with pytest.raises(QuotaExceeded, match="token:ann may start 1 pods"):
                await by(s, ann, s.engine.containers.restart("a"))
        await by(s, bob, s.engine.containers.start("b"))

    act(scenario, **limited(starts=1))


def test_starts_in_a_minute(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await by(s, ANN, s.engine.containers.create(spec("a", "sleep", "100")))
        for _ in range(3):
            await s.call(s.engine.containers.restart("a"))
        with pytest.raises(QuotaExceeded, match=r"token:ann may start 3 pods in a minute, and has: try again in \d+ s"):
            await s.call(s.engine.containers.restart("a"))
        await asyncio.sleep(61)  # of the virtual clock
        await s.call(s.engine.containers.start("a"))

    act(scenario, **limited(starts=3))


def test_a_size_stands_for_cpus_and_memory(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await by(s, ANN, s.engine.containers.create(spec("a", "sleep", "1", size="S3")))
        await s.call(s.engine.pods.create(plan(spec("b"), spec("c"), size="tiny")))
        one, pod = s.engine.registry.pod("a"), s.engine.registry.pod("pod")
        assert (one.size, one.vcpus, one.memory) == ("S3", 1, 256 * MIB + GUEST_OVERHEAD)
        assert (pod.size, pod.vcpus, pod.memory) == ("tiny", 1, 32 * MIB + GUEST_OVERHEAD)
        assert s.engine.registry.container("a").spec.resources == Resources(cpus=1, memory=256 * MIB)
        await s.call(s.engine.containers.start("a"))
        assert s.engine.registry.quotas.status(ANN).used.memory == 256 * MIB
        for wrong, why in (
            ({"size": "XS"}, "there is no size 'XS': choose of S1, "),
            ({"size": "S1", "resources": Resources(memory=1 << 30)}, "size S1 says how many CPUs"),
            ({"size": "S1", "pod": "pod"}, "a size is the pod's, not a container's in it"),
        ):
            with pytest.raises(InvalidArgument, match=why):
                await s.call(s.engine.containers.create(spec("x", **wrong)))
        with pytest.raises(InvalidArgument, match="leave out the size, or the numbers"):
            await s.call(s.engine.pods.create(plan(spec("y"), size="S1", memory=1 << 30)))

    act(scenario, sizes=quota_config.sizes({"tiny": "1/32m"}), **limited(pods=10))


def test_ports_of_the_host_count_running_or_not(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        create, add = s.engine.containers.create, s.engine.pods.add_ports
        made = await by(s, ANN, create(spec("a", ports=[PortMapping(container_port=n) for n in (80, 81)])))
        with pytest.raises(QuotaExceeded, match="may have 3 ports of the host, has 2, and this takes 2 more"):
            await by(s, ANN, create(spec("b", ports=[PortMapping(container_port=n) for n in (80, 81)])))
        found = await asyncio.gather(
            *(by(s, ANN, add(made.pod, [PortMapping(container_port=90 + n)])) for n in range(5)), return_exceptions=True
        )
        assert Counter(type(e).__name__ for e in found) == {"list": 1, "QuotaExceeded": 4}
        await by(s, ANN, s.engine.pods.remove_ports(made.pod, s.engine.registry.pod(made.pod).ports[:1]))
        await by(s, ANN, create(spec("b", ports=[PortMapping(container_port=80)])))
        assert s.engine.registry.quotas.status(ANN).used.ports == 3

    act(scenario, **limited(ports=3))


def test_bytes_of_snapshots_and_images(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await by(s, ANN, s.engine.containers.create(spec("a")))
        await by(s, ANN, s.engine.containers.start("a"))
        await by(s, ANN, s.engine.snapshots.create(SnapshotRequest(pod="a")))
        used = s.engine.registry.quotas.status(ANN).used
        assert used.snapshot_disk > 1 and used.image_disk > 1
        with pytest.raises(QuotaExceeded, match="may have 1B of snapshots, and has"):
            await by(s, ANN, s.engine.snapshots.create(SnapshotRequest(pod="a")))
        with asked_by(ANN), pytest.raises(QuotaExceeded, match="may have 1B of images, and has"):
            s.engine.pull("builtin:busybox")

    act(scenario, factory=True, **limited(snapshot_disk=1, image_disk=1))


async def test_requests_in_a_minute(template: Path) -> None:
    async with served(template, quotas={"token:*": Quota(requests=2)}) as s:
        ann, bob = s.token("read"), s.token("read")
        for docker, path in ((False, "/v1/containers"), (True, "/containers/json")):
            for _ in range(0 if docker else 2):
                assert (await s.ask("GET", path, token=ann, docker=docker)).status == 200
            got = await s.ask("GET", path, token=ann, docker=docker)
            assert got.status == 429 and 1 <= int(got.headers["retry-after"]) <= 30, got
            assert "may ask 2 times in a minute" in got.json["message"]
        assert (await s.ask("GET", "/v1/containers", token=bob)).status == 200
        assert [(await s.ask("GET", "/v1/containers")).status for _ in range(9)] == [200] * 9  # the administrator


def test_requests_are_given_back_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("hypercontainer.sys.clock.seconds", lambda: now[0])
    requests, project = Requests(), (Holder("project web", "p"), Quota(requests=30))
    principal = (Holder("token:a", "p", "token:a"), Quota(requests=1))
    requests.count([project, principal])
    with pytest.raises(TooManyRequests, match="token:a may ask 1 times in a minute") as refused:
        requests.count([project, principal])
    assert refused.value.retry_after == 60
    for _ in range(29):  # what the principal was refused has not counted for the project
        requests.count([project])
    with pytest.raises(TooManyRequests) as refused:
        requests.count([project])
    assert refused.value.retry_after == 2
    now[0] = 2.0
    requests.count([project])
    with pytest.raises(TooManyRequests):
        requests.count([project])
    requests.count([(Holder("project db", "q"), Quota())])


def test_groups_deployments_and_jobs_are_counted(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        engine, container = s.engine, ContainerSpec(image=IMAGE, command=["true"])

        def group(name: str) -> object:
            return engine.security_groups.create(SecurityGroupSpec(name=name))

        def deployment(name: str) -> object:
            return engine.deployments.create(DeploymentRequest(name=name, container=container, replicas=0))

        def job(name: str) -> object:
            return engine.crons.create(CronRequest(name=name, schedule="@daily", container=container))

        for make, remove, words in (
            (group, engine.security_groups.remove, "1 security groups, has 1, and this takes 1 more"),
            (deployment, engine.keeper.remove, "1 deployments, has 1"),
            (job, lambda name: engine.cron_runner.remove(name, force=False), "1 cron jobs, has 1"),
        ):
            with asked_by(ANN):
                make("a")
                with pytest.raises(QuotaExceeded, match=f"token:ann may have {words}"):
                    make("b")
            with asked_by(BOB):
                make("c")
            await by(s, ANN, remove("a"))
            await asyncio.sleep(10)  # a deployment goes with what it has
            with asked_by(ANN):
                make("b")
        used = engine.registry.quotas.status(ANN).used
        assert (used.security_groups, used.deployments, used.crons) == (1, 1, 1)
        assert engine.registry.quotas.status(ANN).limits.crons == 1

    act(scenario, **limited(security_groups=1, deployments=1, crons=1), network="bridge", factory=True)
