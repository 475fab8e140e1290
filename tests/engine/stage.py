# SPDX-License-Identifier: Apache-2.0
"""A host on which daemons come and go: real engines and files, machines and a kernel that are objects.

    with stage(template) as s:          # a virtual clock, an empty host
        s.play(scenario(s))

`Stage.check` is the account of everything that there is; it knows what people can see, and nothing of the
engine's classes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from hypercontainer.engine.builder.machine import VOLUME
from hypercontainer.engine.engine import Engine
from hypercontainer.engine.factory.factory import FactorySettings
from hypercontainer.engine.networks import NetworkSettings
from hypercontainer.engine.paths import BootFiles, Paths
from hypercontainer.engine.settings import Settings
from hypercontainer.errors import HyperError
from hypercontainer.guest.fake import FakeGuest
from hypercontainer.hypervisor.driver import MachineConfig
from hypercontainer.hypervisor.drivers import Drivers
from hypercontainer.hypervisor.fake import FakeDriver, FakeHost, Hardware
from hypercontainer.hypervisor.fake_saving import SavingDriver
from hypercontainer.images import builtin
from hypercontainer.images.disk import SUFFIX
from hypercontainer.images.layout import Layout
from hypercontainer.images.manifests import CONFIG, LAYER, MANIFEST, Descriptor, StoredImage
from hypercontainer.jail.fake_groups import FakeGroups, FakeKernelGroups
from hypercontainer.model.rates import UNBOUNDED, RateBounds
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.model.status import ContainerStatus
from hypercontainer.network.fake import FakeChoice, FakeNet
from hypercontainer.network.fake_kernel import FakeKernel
from hypercontainer.protocol.constants import Builtin
from hypercontainer.state.database import Database
from hypercontainer.sys import clock
from tests.world import FACTORY, World

from .clock import OWNER, Died, VirtualLoop
from .faults import factory_of_tasks

T = TypeVar("T")
SCRATCH = 16 << 20  # bytes
BEGINNING = 1_700_000_000 * 10**9  # nanoseconds since the epoch, by the wall clock, when a virtual clock is at 0
LIMIT = 300.0  # virtual seconds in which every verb returns
QUIET_TIMES = (5.0, 115.0)  # virtual seconds in which whatever is under way comes to its end
IMAGE = "docker.io/library/box:latest"
ALIVE = (ContainerStatus.RUNNING, ContainerStatus.PAUSED)


def put_image(layout: Layout, **config: Any) -> StoredImage:
    """The one image with this configuration."""
    layer = layout.blobs.add(b"layer")
    diff = "sha256:" + hashlib.sha256(b"tar").hexdigest()
    described = {
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [diff]},
    }
    stored = layout.blobs.add(json.dumps(described).encode())
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": stored.digest, "size": stored.size},
        "layers": [{"mediaType": f"{LAYER}+gzip", "digest": layer.digest, "size": layer.size}],
    }
    stored = layout.blobs.add(json.dumps(manifest).encode())
    layout.set_name(IMAGE, Descriptor(media_type=MANIFEST, digest=stored.digest, size=stored.size), "")
    return layout.load(stored.digest)


def make_template(root: Path) -> None:
    """A root directory with one image, and an empty scratch disk, both of which nobody reads."""
    paths = Paths(root, root / "run")
    paths.create()
    layout = Layout(paths.images)
    layout.create()
    image = put_image(layout, Cmd=["sleep", "100000"], Env=["PATH=/bin"])
    disk = paths.images / "disks" / f"{image.chain_id.removeprefix('sha256:')}{SUFFIX}"
    disk.parent.mkdir(exist_ok=True)
    disk.write_bytes(b"erofs")
    (paths.cache / f"blank-{SCRATCH}.ext4").write_bytes(b"ext4")
    shutil.rmtree(paths.run)
    Database(paths.database).close()
    busybox = root / "busybox"
    busybox.write_text("#!/bin/sh\necho sh\n")
    busybox.chmod(0o755)


@dataclass(eq=False)
class Daemon:
    """One hyperd: its engine, and the context in which all of its code runs."""

    engine: Engine
    killed: bool = False
    context: Context = field(default_factory=copy_context)

    def call(self, work: Coroutine[Any, Any, T], *, context: Context | None = None) -> asyncio.Task[T]:
        """As a request to the daemon."""
        return asyncio.get_running_loop().create_task(work, context=context or self.context.copy())


class Stage:
    """One host."""

    def __init__(
        self, root: Path, *, network: str = "user", net: FakeNet | None = None, factory: bool = False,
        rates: RateBounds = UNBOUNDED, **settings: Any,
    ) -> None:  # fmt: skip
        """With a `net` that is all that there is of networks; else the backends of a host on a kernel that is one."""
        self.paths = Paths(root, root / "run")
        self.paths.create()
        self.failing: dict[Builtin, tuple[int, str]] = {}  # what fails in every guest: status and last words
        self.silent: set[int] = set()  # types of requests that no guest answers
        self.host = FakeHost(self._guest)
        self.groups = FakeKernelGroups()
        self.net = net
        self.kernel: FakeNet | FakeKernel = net or FakeKernel()
        self.failures: list[str] = []  # of tasks that nobody asked, and of the loop
        self.daemon: Daemon | None = None
        self.archive = b""  # of a snapshot that was exported
        self.killed = asyncio.Event()  # one has been, ever
        self.drivers = lambda: Drivers([SavingDriver(self.host) if factory else FakeDriver(self.host)])
        self._network, self._factory, self._rates, self._settings = network, factory, rates, settings
        if factory:
            (root / "kernel").write_bytes(b"kernel")
            os.truncate(self.paths.cache / f"blank-{SCRATCH}.ext4", SCRATCH)  # a slot's disk has one size

    def _guest(self, config: MachineConfig) -> FakeGuest:
        guest = FakeGuest()
        guest.failing, guest.silent = self.failing, self.silent
        return guest

    def guest(self, machine: Hardware) -> FakeGuest:
        assert isinstance(machine.guest, FakeGuest)
        return machine.guest

    def machine(self, key: str) -> Hardware:
        """Of a container or a pod that runs."""
        registry = self.engine.registry
        pod = registry.pod(registry.container(key).pod if any(c.name == key for c in registry.containers()) else key)
        return next(m for m in self.host.machines.values() if m.directory.name == pod.id[:12])

    # -- daemons ------------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        assert self.daemon
        return self.daemon.engine

    def prepare(self) -> Daemon:
        """A daemon that has yet to open its engine."""
        settings = Settings(
            paths=self.paths,
            scratch_size=SCRATCH,
            log_size=1 << 20,
            log_files=2,
            boot_timeout=30.0,
            insecure_registries=frozenset(),
            network=NetworkSettings(default=self._network, user_network="slirp", rates=self._rates),
            factory=FactorySettings(enabled=self._factory),
            **{"virtiofs": False, **self._settings},
        )
        boot = BootFiles(self.paths.root / "kernel", self.paths.root / "initramfs", 30.0)
        daemon = Daemon.__new__(Daemon)
        context = Context()
        context.run(OWNER.set, daemon)
        daemon.killed, daemon.context = False, context
        net = self.net
        backends = (lambda records, _: FakeChoice(net, records)) if net else None
        daemon.engine = context.run(
            lambda: Engine(settings, self.drivers(), None, lambda _: boot, backends, FakeGroups(self.groups))
        )
        self.daemon = daemon
        return daemon

    async def open(self) -> Daemon:
        daemon = self.prepare()
        await self.call(self.engine.open())
        return daemon

    def kill(self) -> None:
        """The daemon, as by SIGKILL."""
        assert self.daemon
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.kill(self.daemon)
        self.kernel.daemon_died()
        self.daemon = None
        self.killed.set()

    async def close(self, *, keep_running: bool = False) -> None:
        """The daemon ends in good order."""
        if self.daemon:
            await self.call(self.engine.close(keep_running=keep_running))
            daemon, self.daemon = self.daemon, None
            left = [t for t in asyncio.all_tasks() if getattr(t, "owner", None) is daemon]
            assert not left, f"tasks outlive their daemon: {left}"

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """A verb: it returns in time, whatever happens.

        :raise AssertionError: it does not.
        """
        assert self.daemon
        task = self.daemon.call(work)
        await asyncio.wait({task}, timeout=LIMIT)
        assert task.done(), f"{task.get_coro()} has not returned within {LIMIT:g} s"
        return task.result()

    # -- verbs --------------------------------------------------------------------------

    async def create(self, name: str, *command: str, **spec: Any) -> str:
        wanted = ContainerSpec(image=IMAGE, name=name, command=list(command) or None, **spec)
        return (await self.call(self.engine.containers.create(wanted))).id

    async def run(self, name: str, *command: str, **spec: Any) -> str:
        id_ = await self.create(name, *command, **spec)
        await self.call(self.engine.containers.start(id_))
        return id_

    def give_image(self, project: str) -> None:
        """A project, by its id, has the one that there is."""
        name = Layout(self.paths.images, lambda: "").names()[IMAGE]
        Layout(self.paths.images, lambda: project).set_name(IMAGE, name)

    def status(self, key: str) -> str:
        return str(self.engine.registry.container(key).state.status)

    # -- the account ----------------------------------------------------------------------

    def unowned(self) -> list[str]:
        """A sentence for each thing without an owner, and each record without its thing."""
        found = list(self.failures)
        world = World(self.paths.root, self.paths.run)
        records = world.records()
        found += [w for w in world._records_alone(records) if "record of a machine" not in w]
        found += world.groups_alone(records, set(self.groups.groups))
        found += world._directories(records)
        machines = {m.directory.name: m for m in self.host.machines.values()}
        for name, machine in machines.items():
            if name.startswith(FACTORY):
                if name not in self._waiting():
                    found.append(f"machine {machine.pid} in {name} waits for nobody")
            elif name not in records.running or records.running[name]["vm"]["pid"] != machine.pid:
                found.append(f"machine {machine.pid} in {name} belongs to no pod")
        for name, pod in records.running.items():
            if name not in machines:
                found.append(f"pod {pod['name']} has the record of a machine that has ended")
        found += [f"volume {v} is frozen" for m in machines.values() for v in self.guest(m).held]
        found += self._of_containers(records, machines)
        found += self._of_use(records)
        found += self._of_network(records)
        found += [f"volume {v['name']} has no files" for v in records.volumes.values() if not Path(v["path"]).exists()]
        if self.daemon and (trouble := self.engine.registry.journal.trouble):
            found.append(f"records are not written: {trouble}")
        if self.daemon and (left := self.engine.registry._reserved):
            found.append(f"names are reserved: {left}")
        return found

    def _waiting(self) -> set[str]:
        """Directories of machines that wait in the pool."""
        pool = self.daemon.engine.factory.pool._waiting if self.daemon else {}
        return {c.directory.name for clones in pool.values() for c in clones}

    def _of_containers(self, records: Any, machines: dict[str, Hardware]) -> Iterator[str]:
        mains: dict[str, set[str]] = {}
        for name, machine in machines.items():
            mains[name] = {p.container for p in self.guest(machine).alive() if p.main}
        for id_, record in records.containers.items():
            state = record.get("state", {})
            status, name = state.get("status", "created"), record["name"]
            runs = id_[:12] in mains.get(record["pod"][:12], set())
            if runs != (status in ALIVE):
                yield f"container {name} is {status}, and its program {'runs' if runs else 'does not run'}"
            if state.get("starting"):
                yield f"container {name} is starting for ever"
        known = {id_[:12] for id_ in records.containers}
        for name, containers in mains.items():
            for stray in containers - known:
                yield f"a program of container {stray} runs in {name} without a record"

    def _of_use(self, records: Any) -> Iterator[str]:
        """What runs is metered, and nothing else is, where anything is."""
        if not (self.daemon and self.engine.settings.metering):
            return
        meter, store = self.engine.accounts.meter, self.engine.registry.journal.database
        used = {o.subject.id[:12]: o for o in meter.used_now() if o.subject.kind == "pod"}
        for name in used.keys() ^ records.running.keys():
            yield f"pod {name} {'runs' if name in records.running else 'does not run'}: its metering says otherwise"
        yield from (f"pod {name} is metered as one that is not known" for name, of in used.items() if of.known)
        written = {key for key in store.metered() if key != "mark" and not key.startswith("egress:")}  # they may stay
        if written != {o.subject.key for o in meter.used_now()}:
            yield "what is used is not what is written of it"
        yield from store.check_uses()[1]

    def _of_network(self, records: Any) -> Iterator[str]:
        mine = {a["tap"] for p in records.running.values() for a in p.get("attachments", [])}
        spare = {t for p in records.running.values() for t in p["vm"].get("cards", {})}
        present = set(self.kernel.present())
        asleep = [p for p in records.pods.values() if p.get("status") == "suspended" and p["spec"].get("idleTimeout")]
        rung = {a["tap"] for p in asleep for a in p.get("attachments", [])}  # by whoever wants them
        idle = {
            name for m in self.host.machines.values() if m.directory.name.startswith(FACTORY)
            for name, _ in m.config.taps
        }  # fmt: skip
        for tap in present - mine - spare - idle - rung:
            yield f"tap {tap} belongs to no pod that runs"
        for tap in mine - present:
            yield f"a pod has the record of tap {tap}, which is not there"
        bridge_of = {n["name"]: n["bridge"] for n in records.networks.values()}
        for pod in records.running.values():
            for a in pod.get("attachments", []):
                found = self.kernel.taps[a["tap"]].bridge if a["tap"] in present else ""
                if a["tap"] in present and found != bridge_of[a["network"]]:
                    yield f"tap {a['tap']} is in bridge {found!r}, not in that of network {a['network']}"
        for tap in spare - mine:
            if tap in present and self.kernel.taps[tap].bridge:
                yield f"tap {tap} is in a bridge, and its pod in no network by it"
        named = self.kernel.named()
        for tap in named - mine - rung:
            yield f"rules name {tap}, a tap of no pod that runs"
        for tap in mine - named:
            yield f"tap {tap} has no guarding rules"
        bridges = {n["bridge"] for n in records.networks.values()}
        for bridge in set(self.kernel.bridges) - bridges:
            yield f"bridge {bridge} belongs to no network"
        yield from self._of_guests(records)
        yield from self._of_rules(records)
        for id_ in {*self.net.prepared, *self.net.published, *self.net.rules} if self.net else ():
            if id_[:12] not in records.running:
                yield f"the network has things of pod {id_[:12]}, which does not run"
        ports = {p["hostPort"] for pod in records.running.values() for p in pod.get("ports", [])}
        published = {port.host_port for port in self.host.ports()}
        for port in published - ports:
            yield f"port {port} is published for nobody"
        of_machines = [p for p in records.running.values() if not p.get("attachments") and "network" not in p["spec"]]
        for port in {p["hostPort"] for pod in of_machines for p in pod.get("ports", [])} - published:
            yield f"port {port} is not published by its machine"

    def _of_rules(self, records: Any) -> Iterator[str]:
        """Floating addresses and groups are in force for the pods whose records have them, and for no others."""
        if self.net:
            return
        pods = {p["id"]: p for p in records.running.values() if p.get("attachments")}
        given = {f["address"] for f in World(self.paths.root, self.paths.run).documents("fips") if f.get("pod") in pods}
        leads = self.kernel.elements("inet hyper", "floating_in_four")
        for address in given ^ leads:
            yield f"floating address {address} leads {'to what has it not' if address in leads else 'nowhere'}"
        inside = {a["tap"] for p in pods.values() if p["spec"].get("securityGroups") for a in p["attachments"]}
        guarded = {tap.strip('"') for tap in self.kernel.elements("bridge hyper", "grouped")}
        for tap in inside ^ guarded:
            yield f"tap {tap} is {'in no group, and guarded as one' if tap in guarded else 'in a group without rules'}"

    def _of_guests(self, records: Any) -> Iterator[str]:
        """A guest that runs has what its pod's record says of networks, and nothing else."""
        for machine in self.host.machines.values():
            attachments = records.running.get(machine.directory.name, {}).get("attachments", [])
            told = self.guest(machine).interfaces.items()
            has = {name: own for name, own in told if name != "lo" and not own[0].startswith("10.0.2.")}
            for a in attachments:
                if not has.pop(a["interface"], ("",))[0].startswith(f"{a['ip']}/"):
                    yield f"a guest was not told of {a['interface']}, {a['ip']} in network {a['network']}"
            for name in has:
                yield f"a guest has {name}, and its pod is in no network by it"

    async def check(self) -> None:
        """When everything has come to its end.

        :raise AssertionError: naming all that has no owner.
        """
        for wait in QUIET_TIMES:
            await asyncio.sleep(wait)
            if not (found := self.unowned()):
                return
        raise AssertionError("without an owner:\n  " + "\n  ".join(found))

    async def clear(self) -> None:
        """Remove everything by the verbs that there are, and see that nothing is left.

        :raise AssertionError: something is, or a name is not free.
        """
        for deployment in self.engine.deployments.records():
            await self.call(self.engine.keeper.remove(deployment.id))
        for job in self.engine.crons.records():
            await self.call(self.engine.cron_runner.remove(job.id, force=True))
        for pod in [p for p in self.engine.registry.pods() if not p.implicit]:
            await self.call(self.engine.pods.remove(pod.id, force=True))
        await self.call(self.engine.builds.machine.stop())
        if self.engine.registry.find_volume(VOLUME):
            await self.call(self.engine.volumes.remove(VOLUME))
        for container in self.engine.registry.containers():
            with contextlib.suppress(HyperError):  # with its pod
                await self.call(self.engine.containers.remove(container.id, force=True))
        if self._factory:
            await self.call(self.engine.factory.drain(templates=True))
        await self.check()
        left = [f"container {c.name}" for c in self.engine.registry.containers()]
        left += [f"pod {p.name}" for p in self.engine.registry.pods()]
        left += [f"machine {m.pid}" for m in self.host.machines.values()]
        left += [f"tap {t}" for t in self.kernel.present()]
        left += [str(p) for d in ("containers", "pods") for p in (self.paths.root / d).iterdir()]
        left += [str(p) for p in (self.paths.run / "pods").iterdir()]
        assert not left, f"left behind: {', '.join(left)}"


def _copy(template: Path, root: Path, *, own_images: bool) -> None:
    before, after = str(template), str(root)  # paths are dear, and this is done thousands of times
    os.makedirs(f"{after}/cache")
    for name in ("state.db", f"cache/blank-{SCRATCH}.ext4"):
        shutil.copyfile(f"{before}/{name}", f"{after}/{name}")
    if own_images:
        shutil.copytree(f"{before}/images", f"{after}/images")
    else:
        os.mkdir(f"{after}/images")
        for name in ("index.json", "oci-layout"):
            shutil.copyfile(f"{before}/images/{name}", f"{after}/images/{name}")
        for name in ("blobs", "disks"):
            os.symlink(f"{before}/images/{name}", f"{after}/images/{name}")


@contextlib.contextmanager
def stage(template: Path, *, own_images: bool = False, **settings: Any) -> Iterator[Stage]:
    """An empty host, for one `play`; the store of images is everybody's, and stays so, unless it is asked for."""
    before = os.listdir(f"{template}/images/blobs/sha256")
    open_before = set(os.listdir("/proc/self/fd"))
    base = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="hyper-engine-", dir=base) as place:
        root = Path(place) / "r"
        _copy(template, root, own_images=own_images)
        made = Stage(root, **settings)
        small = mock.patch.object(builtin, "_find_busybox", lambda: template / "busybox")
        with made.kernel.installed(), small if own_images else contextlib.nullcontext():
            try:
                yield made
            finally:
                made.kernel.close()
                if made.killed.is_set():
                    _close_files(place, open_before)
    assert os.listdir(f"{template}/images/blobs/sha256") == before, "what brings images has `own_images=True`"


def _close_files(place: str, open_before: set[str]) -> None:
    """What daemons have open that were killed: nothing of them is ever run again, nor collected, and a process that has
    more than 1024 descriptors cannot `select` any more."""
    for fd in set(os.listdir("/proc/self/fd")) - open_before:
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{fd}")
            if target.startswith(f"{place}/") or re.fullmatch(r"/proc/\d+/mountinfo", target):
                os.close(int(fd))


def whole(scenario: Callable[[Stage], Awaitable[None]]) -> Callable[[Stage], Awaitable[None]]:
    """With the daemon's begin before it; at its end everything can be removed, and the daemon ends."""

    async def played(s: Stage) -> None:
        await s.open()
        await scenario(s)
        await s.check()
        await s.clear()
        await s.close()

    return played


def play(here: Stage, scenario: Callable[[Stage], Awaitable[T]]) -> T:
    """Run a scenario on a clock of its own, and see that it leaves no task, and no failure that nobody heard of."""
    loop = VirtualLoop()
    loop.set_task_factory(factory_of_tasks)
    loop.set_exception_handler(lambda _, context: _hear(here, context))
    asyncio.set_event_loop(loop)
    try:
        with clock.told_by(lambda: BEGINNING + int(loop.time() * 1e9)):
            result = loop.run_until_complete(_act(here, scenario))
        gc.collect(1)
        loop.run_until_complete(asyncio.sleep(0))
        assert not here.failures, "nobody heard of:\n  " + "\n  ".join(here.failures)
        return result
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def _act(here: Stage, scenario: Callable[[Stage], Awaitable[T]]) -> T:
    try:
        return await scenario(here)
    finally:
        if here.daemon:  # something went wrong
            here.kill()
        for machine in list(here.host.machines.values()):
            machine.die()


def _hear(here: Stage, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if not isinstance(error, Died):
        here.failures.append(f"{context.get('message')}: {error!r}")
