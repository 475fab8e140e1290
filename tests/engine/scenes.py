# SPDX-License-Identifier: Apache-2.0
"""Verbs, each on a stage that is set for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hypercontainer.engine.attach.fake import FakePeer
from hypercontainer.engine.attach.peer import Input, InputEnd, Resize, Said
from hypercontainer.engine.attach.session import AttachOptions
from hypercontainer.errors import HyperError
from hypercontainer.images.progress import Progress
from hypercontainer.model.factory import WarmRequest
from hypercontainer.model.network import NetworkRequest, NetworkSpec
from hypercontainer.model.pods import PodPlan, PodSpec, Service, ServiceBackend, VolumeRequest, VolumeSpec
from hypercontainer.model.snapshots import ForkRequest, RestoreRequest, SnapshotRequest
from hypercontainer.model.specs import (
    ContainerSpec,
    ContainerUpdate,
    Dependency,
    ExecSpec,
    HealthCheck,
    InjectedFile,
    Mount,
    PortMapping,
    RestartPolicy,
    SecretMount,
)
from hypercontainer.model.volume_snapshots import VolumeSnapshotRequest

from .stage import IMAGE, Stage

Act = Callable[[Stage], Awaitable[Any]]


@dataclass(frozen=True)
class Scene:
    """`verb` is what something comes between; `before` sets the stage; `after` looks at what became of it."""

    verb: Act
    before: Act | None = None
    network: str = "user"
    opens: bool = False  # the verb is the daemon's own start
    own_images: bool = False  # it changes the store
    varies: bool = False  # it waits more often at one time than at another: parts of it go on side by side
    factory: bool = False  # machines are saved, and wait
    builder: bool = False  # there is one, with a dockerd in it
    after: Act | None = None  # whatever came between
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the daemon


async def build_app(s: Stage) -> None:
    """An image called `app`, of one that is here."""
    headers = {"Content-Type": "application/x-tar"}
    async with s.engine.builds.build([("t", "app:latest")], headers, _context()) as answer:
        said = b"".join([piece async for piece in answer.body])
    if b'"error"' in said:
        raise HyperError(said.decode())
    s.engine.images.find("app")


async def _context() -> AsyncIterator[bytes]:
    yield b"FROM box"


def spec(name: str = "a", *command: str, **how: Any) -> ContainerSpec:
    return ContainerSpec(image=IMAGE, name=name, command=list(command) or None, **how)


def plan(*containers: ContainerSpec, **how: Any) -> PodPlan:
    return PodPlan(name="pod", containers=list(containers), **how)


def runs(*command: str, **how: Any) -> Act:
    async def before(s: Stage) -> None:
        await s.run("a", *command, **how)

    return before


def created(*command: str, **how: Any) -> Act:
    async def before(s: Stage) -> None:
        await s.create("a", *command, **how)

    return before


def pod(*containers: ContainerSpec, start: bool = False, **how: Any) -> Act:
    async def before(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan(*containers, **how)))
        if start:
            await s.call(s.engine.pods.start("pod"))

    return before


async def exited(s: Stage) -> None:
    await s.run("a", "true")
    await s.call(s.engine.containers.wait("a"))
    await asyncio.sleep(1)


async def _run_and_wait(s: Stage) -> int:
    container = await s.engine.containers.create(spec("a", "echo", "x", auto_remove=True), starting=True)
    await s.engine.containers.start(container.id)
    return await s.engine.containers.wait(container.id)


async def _exec(s: Stage) -> None:
    exec_ = s.engine.execs.create("a", ExecSpec(command=["echo", "x"]))
    await s.engine.execs.start(exec_)
    await exec_.ended.wait()


async def _exec_with_input(s: Stage) -> None:
    exec_ = s.engine.execs.create("a", ExecSpec(command=["cat"], stdin=True))
    await s.engine.execs.start(exec_)
    assert exec_.handle
    for _ in range(3):
        await exec_.handle.write_stdin(b"x" * 40_000)
        await asyncio.sleep(0)
    exec_.handle.close_stdin()
    await exec_.ended.wait()


def _talking(*said: Said) -> FakePeer:
    """A client, as a front end has it."""
    peer = FakePeer()
    peer.says(*said)
    return peer


async def _run_attached(s: Stage) -> None:
    container = await s.engine.containers.create(spec("a", "cat", stdin=True, auto_remove=True), starting=True)
    session = s.engine.attachments.container(container.id, AttachOptions(), starts=True)
    await session.run(_talking(Input(b"x\n" * 40_000), InputEnd()))


async def _attach_and_detach(s: Stage) -> None:
    session = s.engine.attachments.container("a", AttachOptions(logs=True))
    await session.run(_talking(Resize(24, 80), Input(b"x\n"), Input(b"\x10\x11")))


async def _exec_attached(s: Stage) -> None:
    exec_ = s.engine.execs.create("a", ExecSpec(command=["cat"], stdin=True))
    await s.engine.attachments.exec(exec_, AttachOptions()).run(_talking(Input(b"x\n"), InputEnd()))


async def _paused(s: Stage) -> None:
    await s.run("a")
    await s.call(s.engine.containers.pause("a"))


async def _restarting(s: Stage) -> None:
    await s.run("a", "after", "1", "1", restart=RestartPolicy(name="always"))
    await asyncio.sleep(1.1)


async def _volumes(s: Stage) -> None:
    await s.engine.containers.start("a")


async def _network(s: Stage) -> None:
    await s.call(s.engine.networks.create(NetworkSpec(name="net", subnets=["10.77.0.0/24"])))


def in_network(then: Act) -> Act:
    async def before(s: Stage) -> None:
        await _network(s)
        await then(s)

    return before


async def _connected(s: Stage) -> None:
    await pod(spec("a"), start=True)(s)
    await s.call(s.engine.connect("pod", NetworkRequest(name="net")))


def _own_connect(s: Stage) -> Any:
    return s.engine.connect("a", NetworkRequest(name="net"))


async def _own_connected(s: Stage) -> None:
    await s.run("a")
    await s.call(_own_connect(s))


async def _left_running(s: Stage) -> None:
    """A daemon was killed; a pod runs, and a container has ended meanwhile, which is to be started again."""
    await s.run("d", "after", "1", "1", restart=RestartPolicy(name="on-failure", max_retries=2))
    await s.call(s.engine.pods.create(plan(spec("e"), spec("f"))))
    await s.call(s.engine.pods.start("pod"))
    s.kill()
    await asyncio.sleep(3)
    s.prepare()


async def left_with_limits(s: Stage) -> None:
    """A daemon was killed; one pod has nothing to do, and the time of two others is soon over."""
    await s.run("a", idle_timeout=10, mounts=VOLUME, ports=_PORT)
    await s.run("b", ttl=10)
    await s.run("c", ttl=10, auto_remove=True)
    s.kill()
    await asyncio.sleep(3)
    s.prepare()


async def open_for_a_while(s: Stage) -> None:
    """With all that the daemon does by itself then."""
    await s.engine.open()
    await asyncio.sleep(30)


async def _idle(s: Stage) -> None:
    await s.run("a", idle_timeout=10, mounts=VOLUME, ports=_PORT)
    await asyncio.sleep(30)
    assert s.status("a") == "suspended"


async def _roused(s: Stage) -> None:
    await s.engine.containers.rouse("a")
    await _exec(s)


async def _chunks() -> AsyncIterator[bytes]:
    for _ in range(3):
        await asyncio.sleep(0)
        yield b"\0" * 5120


async def _read(s: Stage) -> None:
    async for _ in s.engine.archives.read("a", "/etc", follow=False):
        pass


async def _waits(s: Stage) -> None:
    """A container, and a machine of the pool for it."""
    await s.run("b")
    await asyncio.sleep(60)
    assert any(p.waiting for p in s.engine.factory.status().pool)
    await s.create("a")


async def _fork(s: Stage) -> None:
    await s.engine.snapshots.fork("a", ForkRequest(count=2, name="f"))


async def _fork_pod(s: Stage) -> None:
    await s.engine.snapshots.fork("pod", ForkRequest(name="other"))


async def _snapshot(s: Stage) -> None:
    await s.engine.snapshots.create(SnapshotRequest(pod="a", name="shot"))


async def _snapshot_taken(s: Stage) -> None:
    await s.run("a", mounts=VOLUME)
    await s.call(_snapshot(s))


async def _snapshot_again(s: Stage) -> None:
    await s.engine.snapshots.create(SnapshotRequest(pod="a", name="next"))


async def _restore(s: Stage) -> None:
    await s.engine.snapshots.restore("shot", RestoreRequest(name="again"))


async def _exported(s: Stage) -> None:
    await _snapshot_taken(s)
    s.archive = await s.call(_joined(s.engine.transfers.export("shot")))


async def _joined(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def _import(s: Stage) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(s.archive), 1000):
            yield s.archive[at : at + 1000]

    await s.engine.transfers.import_(pieces(), "other")


async def _suspended(s: Stage) -> None:
    await s.run("a", mounts=VOLUME, ports=_PORT)
    await s.call(s.engine.suspensions.suspend("a"))


async def _suspended_by_another(s: Stage) -> None:
    await _suspended(s)
    await s.close(keep_running=True)
    await s.open()


async def _saved(s: Stage) -> None:
    """A container, and a template for its machine."""
    await _waits(s)
    await s.call(s.engine.factory.drain(templates=False))


def _warm(s: Stage) -> Any:
    return s.engine.warm(WarmRequest(count=1))


async def _all(chunks: AsyncIterator[Any]) -> None:
    async for _ in chunks:
        pass


async def _signalled(s: Stage) -> None:
    exec_ = s.engine.execs.create("a", ExecSpec(command=["sleep", "1000"], tty=True))
    await s.engine.execs.start(exec_, (24, 80))
    await s.engine.execs.resize(exec_.id, 30, 100)
    await s.engine.execs.signal(exec_.id, "KILL")
    await exec_.ended.wait()


async def _volume_snapshot(s: Stage) -> None:
    await s.engine.volume_snapshots.create(VolumeSnapshotRequest(volume="vol", name="shot"), Progress())


async def _volume_snapshot_taken(s: Stage) -> None:
    await volumes(VolumeSpec(name="vol"))(s)
    await s.call(_volume_snapshot(s))


def volumes(*specs: VolumeSpec) -> Act:
    async def before(s: Stage) -> None:
        for one in specs:
            await s.call(s.engine.volumes.create(one))

    return before


async def _ports(s: Stage) -> None:
    await pod(spec("a"), start=True)(s)
    await s.call(s.engine.pods.add_ports("pod", _PORT))


async def _pod_paused(s: Stage) -> None:
    await pod(spec("a"), start=True)(s)
    await s.call(s.engine.pods.pause("pod"))


async def _join(s: Stage) -> None:
    container = await s.engine.containers.create(spec("j", pod="pod"))
    await s.engine.containers.start(container.id)


async def _pull(s: Stage) -> None:
    _, image = s.engine.pull("builtin:busybox")
    await image


async def _rename(s: Stage) -> None:
    s.engine.containers.rename("a", "b")


def _connect(s: Stage) -> Any:
    return s.engine.connect("pod", NetworkRequest(name="net"))


def _c(verb: str, *args: Any, **how: Any) -> Act:
    return lambda s: getattr(s.engine.containers, verb)(*args, **how)


def _p(verb: str, *args: Any, **how: Any) -> Act:
    return lambda s: getattr(s.engine.pods, verb)(*args, **how)


_PORT = [PortMapping(container_port=80)]
VOLUME = [Mount(target="/data", source="vol")]
_HEALTHY = Dependency(container="a", condition="healthy")
_CHECKED = (spec("a", health=HealthCheck(command=["true"], interval=1)), spec("b", depends_on=[_HEALTHY]))
_DISKS = [VolumeRequest(name="v"), VolumeRequest(name="t", format="tmpfs"), VolumeRequest(name="n", source="n")]
_MOUNTS = [Mount(target=f"/{v.name}", source=v.name) for v in _DISKS]
_SECRET = {"key": b"open sesame"}
_WITH_ALL = spec(
    mounts=_MOUNTS, files=[InjectedFile(target="/x", content=b"x")], secrets=[SecretMount(secret="key", target="/k")]
)
_SERVICE = Service(service_ip="10.254.0.1", service_port=80, hosts=[ServiceBackend(host_ip="10.0.2.2", host_port=80)])
_POD = (spec("a"), spec("b", depends_on=[Dependency(container="a")]), spec("i", "true", init=True))

SCENES: dict[str, Scene] = {
    "create": Scene(lambda s: s.engine.containers.create(spec(mounts=VOLUME))),
    "create with a volume of no name": Scene(lambda s: s.engine.containers.create(spec(mounts=[Mount(target="/d")]))),
    "rm -v": Scene(_c("remove", "a", volumes=True), created(mounts=[Mount(target="/d")])),
    "create in a network": Scene(lambda s: s.engine.containers.create(spec()), network="bridge"),
    "start": Scene(_c("start", "a"), created(mounts=VOLUME, ports=_PORT)),
    "start in a network": Scene(_c("start", "a"), created(ports=_PORT, ingress_rate=1 << 20), "bridge"),
    "start with a policy": Scene(_c("start", "a"), created(restart=RestartPolicy(name="always"))),
    "start again": Scene(_c("start", "a"), exited),
    "start from the pool": Scene(_c("start", "a"), _waits, factory=True),
    "start from a template": Scene(_c("start", "a"), _saved, factory=True),
    "warm": Scene(_warm, factory=True),
    "fork": Scene(_fork, runs(mounts=VOLUME, ports=_PORT), factory=True, varies=True),
    "fork in a network": Scene(_fork, runs(ports=_PORT), "bridge", factory=True, varies=True),
    "fork of a pod": Scene(_fork_pod, pod(spec("b"), spec("c"), start=True), factory=True, varies=True),
    "snapshot": Scene(_snapshot, runs(mounts=VOLUME), factory=True),
    "snapshot of what was saved before": Scene(_snapshot_again, _snapshot_taken, factory=True),
    "restore": Scene(_restore, _snapshot_taken, factory=True),
    "snapshot rm": Scene(lambda s: s.engine.snapshots.remove("shot"), _snapshot_taken, factory=True),
    "snapshot export": Scene(lambda s: _all(s.engine.transfers.export("shot")), _snapshot_taken, factory=True),
    "snapshot import": Scene(_import, _exported, factory=True),
    "suspend": Scene(lambda s: s.engine.suspensions.suspend("a"), runs(mounts=VOLUME, ports=_PORT), factory=True),
    "suspend in a network": Scene(
        lambda s: s.engine.suspensions.suspend("pod"), pod(spec("b"), spec("c"), start=True), "bridge", factory=True
    ),
    "resume": Scene(lambda s: s.engine.suspensions.resume("a"), _suspended, factory=True),
    "resume in a network": Scene(lambda s: s.engine.suspensions.resume("a"), _suspended, "bridge", factory=True),
    "resume by another daemon": Scene(
        lambda s: s.engine.suspensions.resume("a"), _suspended_by_another, "bridge", factory=True
    ),
    "exec in what has suspended itself": Scene(_roused, _idle, factory=True),
    "exec in what has suspended itself in a network": Scene(_roused, _idle, "bridge", factory=True),
    "stop of what is suspended": Scene(_c("stop", "a"), _suspended, factory=True),
    "rm -f of what is suspended": Scene(_c("remove", "a", force=True), _suspended, factory=True),
    "run --rm": Scene(_run_and_wait),
    "exec": Scene(_exec, runs()),
    "exec with input": Scene(_exec_with_input, runs()),
    "run -i --rm": Scene(_run_attached),
    "attach, and detach by the keys": Scene(_attach_and_detach, runs("cat", stdin=True, tty=True)),
    "exec -i": Scene(_exec_attached, runs()),
    "stop": Scene(_c("stop", "a"), runs()),
    "stop of what does not listen": Scene(_c("stop", "a"), runs("ignore-term")),
    "stop of what is paused": Scene(_c("stop", "a"), _paused),
    "stop of what is started again": Scene(_c("stop", "a"), _restarting),
    "stop in a network": Scene(_c("stop", "a"), runs(ports=_PORT), "bridge"),
    "kill": Scene(_c("kill", "a", "KILL"), runs()),
    "restart": Scene(_c("restart", "a"), runs()),
    "pause": Scene(_c("pause", "a"), runs()),
    "unpause": Scene(_c("unpause", "a"), _paused),
    "update": Scene(lambda s: s.engine.updates.update("a", ContainerUpdate(pids=9, memory=64 << 20)), runs()),
    "rm": Scene(_c("remove", "a"), exited),
    "rm -f": Scene(_c("remove", "a", force=True), runs(mounts=VOLUME)),
    "rm -f in a network": Scene(_c("remove", "a", force=True), runs(ports=_PORT), "bridge"),
    "cp out": Scene(_read, created()),
    "cp in": Scene(lambda s: s.engine.archives.write("a", "/srv", _chunks()), runs()),
    "pull": Scene(_pull, own_images=True, varies=True),
    "build": Scene(build_app, own_images=True, builder=True, varies=True),
    "pod create": Scene(lambda s: s.engine.pods.create(plan(*_POD))),
    "pod start": Scene(_p("start", "pod"), pod(*_POD)),
    "pod start in a network": Scene(_p("start", "pod"), pod(*_POD[:1], spec=PodSpec(ports=_PORT)), "bridge"),
    "pod stop": Scene(_p("stop", "pod"), pod(*_POD, start=True)),
    "pod rm -f": Scene(_p("remove", "pod", force=True), pod(*_POD, start=True)),
    "pod pause": Scene(_p("pause", "pod"), pod(*_POD, start=True)),
    "pod unpause": Scene(_p("unpause", "pod"), _pod_paused),
    "container joins a pod": Scene(_join, pod(spec("a"), start=True)),
    "container leaves a pod": Scene(_c("remove", "b", force=True), pod(spec("a"), spec("b"), start=True)),
    "network create": Scene(lambda s: s.engine.networks.create(NetworkSpec(name="net", subnets=["10.77.0.0/24"]))),
    "network connect": Scene(_connect, in_network(pod(spec("a"), start=True)), "bridge"),
    "network disconnect": Scene(lambda s: s.engine.disconnect("pod", "net"), in_network(_connected), "bridge"),
    "network connect of a container": Scene(_own_connect, in_network(runs(ingress_rate=1 << 20)), "bridge"),
    "network disconnect of a container": Scene(
        lambda s: s.engine.disconnect("a", "net"), in_network(_own_connected), "bridge"
    ),
    "ports add": Scene(_p("add_ports", "pod", _PORT), pod(spec("a"), start=True)),
    "ports add in a network": Scene(_p("add_ports", "pod", _PORT), pod(spec("a"), start=True), "bridge"),
    "ports rm": Scene(_p("remove_ports", "pod", _PORT), _ports),
    "ports rm in a network": Scene(_p("remove_ports", "pod", _PORT), _ports, "bridge"),
    "services": Scene(lambda s: s.engine.services.replace("pod", [_SERVICE]), pod(spec("a"), start=True)),
    "exec with a signal": Scene(_signalled, runs()),
    "export": Scene(lambda s: _all(s.engine.archives.export("a")), created()),
    "diff": Scene(lambda s: s.engine.archives.changes("a"), runs()),
    "top and stats": Scene(lambda s: asyncio.gather(s.engine.monitor.top("a"), s.engine.monitor.stats("a")), runs()),
    "network rm": Scene(lambda s: s.engine.networks.remove("net"), _network, "bridge"),
    "network prune": Scene(lambda s: s.engine.networks.prune(), _network, "bridge"),
    "volume create": Scene(lambda s: s.engine.volumes.create(VolumeSpec(name="v"))),
    "volume rm": Scene(lambda s: s.engine.volumes.remove("v"), volumes(VolumeSpec(name="v"))),
    "volume prune": Scene(lambda s: s.engine.volumes.prune(), volumes(VolumeSpec(driver="directory"), VolumeSpec())),
    "volume snapshot": Scene(_volume_snapshot, volumes(VolumeSpec(name="vol"))),
    "volume snapshot of what runs": Scene(_volume_snapshot, runs(mounts=VOLUME)),
    "volume snapshot rm": Scene(lambda s: s.engine.volume_snapshots.remove("shot"), _volume_snapshot_taken),
    "volume create from a snapshot": Scene(
        lambda s: s.engine.volume_snapshots.create_volume(VolumeSpec(name="v", snapshot="shot")), _volume_snapshot_taken
    ),
    "pod start with dependencies": Scene(_p("start", "pod"), pod(*_CHECKED)),
    "pod create with volumes and secrets": Scene(
        lambda s: s.engine.pods.create(plan(_WITH_ALL, volumes=_DISKS, secrets=_SECRET))
    ),
    "pod start with volumes and secrets": Scene(
        _p("start", "pod"), pod(_WITH_ALL, volumes=_DISKS, secrets=_SECRET, spec=PodSpec(services=[_SERVICE]))
    ),
    "recovery": Scene(lambda s: s.engine.open(), _left_running, opens=True),
    "recovery in a network": Scene(lambda s: s.engine.open(), _left_running, "bridge", opens=True),
}
SINGLES = (
    "start",
    "stop",
    "stop of what does not listen",
    "kill",
    "restart",
    "pause",
    "unpause",
    "rm",
    "rm -f",
    "exec",
)
PODS = ("pod start", "pod stop", "pod rm -f", "pod pause", "pod unpause")
# What may come at any moment of one of these, whatever is there then.
PARTNERS: dict[str, Act] = {
    "start": _c("start", "a"), "stop": _c("stop", "a", 1), "kill": _c("kill", "a", "KILL"),
    "restart": _c("restart", "a", 1), "pause": _c("pause", "a"), "unpause": _c("unpause", "a"), "rm": _c("remove", "a"),
    "rm -f": _c("remove", "a", force=True), "exec": _exec, "rename": _rename, "cp": _read,
    "pod start": _p("start", "pod"), "pod stop": _p("stop", "pod", 1), "pod rm -f": _p("remove", "pod", force=True),
    "pod pause": _p("pause", "pod"), "pod unpause": _p("unpause", "pod"),
}  # fmt: skip
