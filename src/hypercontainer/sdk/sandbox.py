# SPDX-License-Identifier: Apache-2.0
"""A sandbox: a virtual machine made of a container image, in which programs are run.

To hyperd it is a container of its own, whose own program is an init that does nothing; `hyperctl ps` lists it.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from ..client.base import container_route, pod_route, snapshot_route
from ..errors import NotFound
from ..model.egress import EgressChange, parse_host
from ..model.lifetimes import Lifetime, LifetimeInfo, TtlAction
from ..model.snapshots import ForkRequest, RestoreRequest, SnapshotInfo, SnapshotRequest
from ..model.specs import ContainerSpec, ExecSpec, PortMapping, PullPolicy
from ..model.statistics import ContainerStats
from ..model.status import Container, ContainerStatus, Pod, PodDetails
from . import images
from .api import Api, Query
from .connection import AsyncConnection
from .exchange import Exchange
from .files import AsyncFiles
from .frames import Frames
from .interpreter import COMMAND, AsyncInterpreter, Kernel, begun
from .limits import DEFAULT, LONG, Bounded, Deadline, within
from .process import AsyncProcess, fed, finish
from .processes import AsyncProcesses
from .results import CommandFailed, CommandResult, Execution, LogLine
from .spec import LABEL, Port, Volume, command_of, env_of, sandbox_spec

T = TypeVar("T")
_CREATE = 300.0  # seconds, which a pull may take
_START = 120.0  # seconds for an interpreter's start
_SAVE = 120.0  # seconds to save or copy a machine
_ending: set[asyncio.Task[bool]] = set()  # of sandboxes that nobody has heard of


class AsyncSandbox(Bounded):
    """A sandbox that runs; as a context it is removed at its end.

    Every method ends within its `timeout`, in seconds, and then says what it was that did not answer.
    """

    def __init__(self, api: Api, container: Container) -> None:
        """Made by `create`, `connect`, `list`, `restore` and `fork`."""
        super().__init__(api, container.id)
        self._container = container
        self._files = AsyncFiles(api, container.id, container.process.cwd)
        self._processes = AsyncProcesses(api, container.id)
        self._coding = asyncio.Lock()
        self._interpreter: AsyncInterpreter | None = None

    # -- which one -----------------------------------------------------------------------

    @classmethod
    async def create(
        cls, image: str, *, command: Sequence[str] | None = None, name: str | None = None, cpus: float | None = None,
        memory: int | str | None = None, env: Mapping[str, str] | None = None, workdir: str | None = None,
        user: str | None = None, ports: Sequence[Port] = (), volumes: Sequence[Volume] = (),
        network: str | None = None, labels: Mapping[str, str] | None = None, pull: PullPolicy | None = None,
        keep: bool = False, ttl: float | None = None, idle_timeout: float | None = None,
        spec: ContainerSpec | None = None, host: str | None = None, timeout: float = _CREATE,
    ) -> AsyncSandbox:  # fmt: skip
        """A new one of an image, which is pulled when it is not there; it runs when this returns.

        `memory`: bytes, or such as `512m`. `ports`: what is published, a number of the sandbox's or `8080:80`.
        `volumes`: `NAME:/PATH[:ro]`, or a directory of this host. `labels`: what `list` finds it by. `command`: its
        own program, with which it ends; without, it is there for what is run in it. `keep`: it stays, stopped, when it
        has ended by itself. `ttl`: seconds, after which it is ended, whatever has become of this program.
        `idle_timeout`: seconds without anything to do, after which it is suspended until it is used again. `spec`: all
        else that there is for containers. `host`: a hyperd, else HYPER_HOST's, else this user's own, which is started.

        :raise NotFound: there is no such image. :raise StartFailed: nor such a command; nothing of it is left.
        :raise Unavailable: hyperd does not run, and cannot be started.
        """
        asked = sandbox_spec(
            image, spec, command=command, name=name, cpus=cpus, memory=memory, env=env, workdir=workdir, user=user,
            ports=ports, volumes=volumes, network=network, labels=labels, pull=pull, keep=keep,
            ttl=ttl, idle_timeout=idle_timeout,
        )  # fmt: skip
        api = Api(host)
        call, what = images.create(api, asked), f"a sandbox of {image}"
        made = await within(api, "", Deadline(timeout), what, call, lambda lost: _unmake(api, lost))
        return cls(api, made)

    @classmethod
    async def connect(cls, sandbox: str, *, host: str | None = None, timeout: float = DEFAULT) -> AsyncSandbox:
        """One that is there, by its id or name. :raise NotFound: there is none."""
        api = Api(host)
        call = api.call(Container, "GET", container_route(sandbox))
        return cls(api, await within(api, "", Deadline(timeout), "finding the sandbox", call))

    @classmethod
    async def list(
        cls, *, labels: Mapping[str, str] | None = None, host: str | None = None, timeout: float = DEFAULT
    ) -> builtins.list[AsyncSandbox]:
        """Those that there are, newest first, also what has stopped and was kept; with all of these labels."""
        api = Api(host)
        wanted = [LABEL, *(f"{k}={v}" for k, v in (labels or {}).items())]
        query: Query = {"all": True, "filters": msgspec.json.encode({"label": wanted}).decode()}
        call = api.call(list[Container], "GET", "/containers", query)
        found = await within(api, "", Deadline(timeout), "the list of sandboxes", call)
        return [cls(api, c) for c in found if LABEL in c.spec.labels]  # the filter takes an image's labels, too

    @classmethod
    async def restore(
        cls, snapshot: str, *, name: str = "", host: str | None = None, timeout: float = _SAVE
    ) -> AsyncSandbox:
        """One that goes on where a saved one was, by the snapshot's id or name. :raise NotFound: there is none."""
        api = Api(host)
        call = api.call(PodDetails, "POST", snapshot_route(snapshot, "/restore"), None, RestoreRequest(name=name))
        what = "the sandbox of the snapshot"
        made = await within(api, "", Deadline(timeout), what, call, lambda lost: _unmake(api, *lost.containers))
        return cls(api, made.containers[0])

    @property
    def id(self) -> str:
        """It stays the same."""
        return self._container.id

    @property
    def name(self) -> str:
        """The one that was given, or a made-up one."""
        return self._container.name

    @property
    def image(self) -> str:
        """As it was named."""
        return self._container.image

    @property
    def labels(self) -> dict[str, str]:
        """Those that it was given."""
        return {k: v for k, v in self._container.spec.labels.items() if k != LABEL}

    @property
    def files(self) -> AsyncFiles:
        """Its files."""
        return self._files

    @property
    def processes(self) -> AsyncProcesses:
        """Its processes."""
        return self._processes

    async def info(self, *, timeout: float = DEFAULT) -> Container:
        """All that hyperd says of it, now. :raise NotFound: it was removed."""
        self._container = await self._call(Container, "GET", self._route(), timeout=timeout, what="the question")
        return self._container

    async def is_running(self, *, timeout: float = DEFAULT) -> bool:
        """Whether it runs; one that was removed does not."""
        try:
            return (await self.info(timeout=timeout)).state.status is ContainerStatus.RUNNING
        except NotFound:
            return False

    # -- its end -------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        await self.kill()

    async def kill(self, *, timeout: float = DEFAULT) -> bool:
        """End it at once, and remove it with what it has written; False when it was gone."""
        try:
            call = self._api.do("DELETE", self._route(), {"force": True, "volumes": True})
            await self._within(timeout, "the sandbox's end", call)
        except NotFound:
            return False
        return True

    async def set_lifetime(
        self, *, ttl: float | None = None, ttl_action: TtlAction | None = None, idle_timeout: float | None = None,
        timeout: float = DEFAULT,
    ) -> LifetimeInfo:  # fmt: skip
        """How long it is there: `ttl` seconds from now, 0 without end. What is over then is ended, or with
        `ttl_action="suspend"` stands still until `resume`. What is None stays as it was.
        """
        body = Lifetime(ttl=ttl, ttl_action=ttl_action, idle_timeout=idle_timeout)
        route = pod_route(self._container.pod, "/lifetime")
        return await self._call(LifetimeInfo, "POST", route, body, timeout=timeout, what="the lifetime")

    # -- programs ------------------------------------------------------------------------

    async def run(
        self, command: str | Sequence[str], *, input: str | bytes | None = None, env: Mapping[str, str] | None = None,
        workdir: str = "", user: str = "", check: bool = False, timeout: float = DEFAULT,
    ) -> CommandResult:  # fmt: skip
        """Run a command to its end; a text is the shell's, a sequence of words is a program. With the timeout, or
        when this call is cancelled, it is killed.

        :raise StartFailed: there is no such program. :raise CommandFailed: it did not end well, and `check` is given.
        :raise DeadlineExceeded: it has not ended in time.
        """
        deadline = Deadline(timeout)
        spec = ExecSpec(
            command=command_of(command), env=env_of(env), workdir=workdir, user=user, stdin=input is not None
        )
        async with await self._begin(spec, {"bound": True}, deadline) as process:
            async with fed(process, input, deadline.left):
                result = await finish(process, deadline, "the command", busy="it was killed")
        if check and not result.ok:
            raise CommandFailed(result)
        return result

    async def exec(
        self, command: str | Sequence[str], *, env: Mapping[str, str] | None = None, workdir: str = "",
        user: str = "", stdin: bool = False, tty: bool = False, rows: int = 24, columns: int = 80,
        background: bool = False, timeout: float = DEFAULT,
    ) -> AsyncProcess:  # fmt: skip
        """Begin a command, and return with it: its output is read, and its input written, as it runs. `tty`: it has a
        terminal of that size. `background`: it goes on when this program ends; else it is killed then.

        `timeout` is for its begin alone. That there is no such program is told when its output is read.
        """
        spec = ExecSpec(command=command_of(command), env=env_of(env), workdir=workdir, user=user, stdin=stdin, tty=tty)
        query: dict[str, int | bool] = {"bound": not background}
        if tty:
            query |= {"rows": rows, "columns": columns}
        return await self._begin(spec, query, Deadline(timeout))

    async def _begin(self, spec: ExecSpec, query: Mapping[str, int | bool], deadline: Deadline) -> AsyncProcess:
        call = self._api.upgrade(self._route("/exec"), {"start": True, **query}, spec)
        exchange = await self._within(deadline, "the command's begin", call, Exchange.close)
        return AsyncProcess(self._api, self.id, exchange.headers.get("hyper-id", ""), Frames(exchange))

    async def interpreter(
        self, *, kernel: Kernel = "auto", env: Mapping[str, str] | None = None, workdir: str = "", user: str = "",
        timeout: float = _START,
    ) -> AsyncInterpreter:  # fmt: skip
        """An interpreter of Python, with variables of its own: Jupyter's kernel where the image has `jupyter_client`
        and `ipykernel`, else the image's python3 alone; `kernel` may ask for one of them.

        :raise StartFailed: the image has no python3.
        """
        deadline = Deadline(timeout)
        spec = ExecSpec(command=COMMAND, env=env_of(env), workdir=workdir, user=user, stdin=True)
        return await begun(await self._begin(spec, {"bound": True}, deadline), kernel, deadline)

    async def run_code(self, code: str, *, timeout: float = DEFAULT) -> Execution:
        """Run Python code in the sandbox's own interpreter, which is begun by the first call; variables stay, until it
        ends. What the code raises is in what this gives.

        :raise DeadlineExceeded: it took too long, and could not be interrupted.
        """
        deadline = Deadline(timeout)
        own = await self._within(timeout, "the interpreter's start", self._own_interpreter(timeout))
        return await own.run(code, timeout=deadline.left)

    async def _own_interpreter(self, timeout: float) -> AsyncInterpreter:
        async with self._coding:
            if self._interpreter is None or self._interpreter.ended:
                self._interpreter = await self.interpreter(timeout=timeout)
            return self._interpreter

    # -- network -------------------------------------------------------------------------

    async def ports(self, *, timeout: float = DEFAULT) -> builtins.list[PortMapping]:
        """What is published of it, with the ports of the host."""
        return (await self.info(timeout=timeout)).ports

    async def address(self, port: int, *, timeout: float = DEFAULT) -> tuple[str, int]:
        """Where one of its ports is published: an address of the host and a port.

        :raise NotFound: it is not published.
        """
        for mapping in await self.ports(timeout=timeout):
            if mapping.container_port == port:
                return mapping.host_ip or "127.0.0.1", mapping.host_port
        raise NotFound(f"port {port} of sandbox {self.name} is not published", hint="give ports=[...] to `create`")

    async def dial(self, port: int, *, timeout: float = DEFAULT) -> AsyncConnection:
        """A connection to one of its ports, published or not. That nobody listens is told when it is read."""
        call = self._api.upgrade(pod_route(self._container.pod, "/connect"), {"port": port})
        exchange = await self._within(timeout, "the connection", call, Exchange.close)
        return AsyncConnection(self._api, self.id, Frames(exchange))

    # -- watching it ---------------------------------------------------------------------

    async def metrics(self, *, timeout: float = DEFAULT) -> ContainerStats:
        """What it uses, now."""
        return await self._call(ContainerStats, "GET", self._route("/stats"), timeout=timeout, what="the metrics")

    async def logs(
        self, *, follow: bool = False, tail: int | None = None, timeout: float = LONG
    ) -> AsyncIterator[LogLine]:
        """Lines that its own program has written (what is run in it later has output of its own); `tail`: the last so
        many; `follow`: and what comes, to its end. `timeout`: seconds in all.
        """
        deadline = Deadline(timeout)
        opened = self._api.opened("GET", self._route("/logs"), {"follow": follow, "tail": tail})
        exchange = await self._within(deadline, "the log", opened, Exchange.close)
        try:
            lines = aiter(exchange.lines())
            while line := await self._within(deadline, "the log", _next(lines)):
                found = msgspec.json.decode(line)
                yield LogLine(found["time"], found["stream"], found["log"].removesuffix("\n"))
        finally:
            exchange.close()

    # -- the machine ---------------------------------------------------------------------

    async def pause(self, *, timeout: float = DEFAULT) -> None:
        """All of its programs stand still, and take no CPU; its memory stays."""
        await self._do("POST", self._route("/pause"), timeout, "the pause")

    async def suspend(self, *, timeout: float = _SAVE) -> None:
        """The same, on the disk: it takes no memory.

        :raise Unsupported: it cannot be. :raise NoSpace: the disk is full; it runs on.
        """
        await self._do("POST", pod_route(self._container.pod, "/suspend"), timeout, "the suspension")

    async def resume(self, *, timeout: float = _SAVE) -> None:
        """They go on, from a pause or from the disk. :raise InvalidState: they run."""
        deadline = Deadline(timeout)
        on_disk = (await self.info(timeout=timeout)).state.status is ContainerStatus.SUSPENDED
        route = pod_route(self._container.pod, "/resume") if on_disk else self._route("/unpause")
        await self._do("POST", route, deadline.left, "going on")

    async def set_egress(self, hosts: Sequence[str] | None, *, timeout: float = DEFAULT) -> None:
        """What it may reach from now on: these hosts by name, as `--allow-host` has them, or with None everything.

        Connections that stay allowed go on, others are ended. :raise Unsupported: its network has no such rules.
        """
        change = EgressChange(open=hosts is None, hosts=[parse_host(text) for text in hosts or ()])
        route = pod_route(self._container.pod, "/egress")
        await self._call(Pod, "POST", route, change, timeout=timeout, what="another egress policy")

    async def snapshot(self, name: str = "", *, timeout: float = _SAVE) -> SnapshotInfo:
        """Save its memory, its disks and its programs at one instant; it runs on. See `restore`."""
        body = SnapshotRequest(pod=self._container.pod, name=name)
        return await self._call(SnapshotInfo, "POST", "/snapshots", body, timeout=timeout, what="the snapshot")

    async def fork(self, count: int = 1, *, name: str = "", timeout: float = _SAVE) -> builtins.list[AsyncSandbox]:
        """New ones that go on where this one is now, programs and all; it runs on. `name`: theirs, with a number."""
        request = ForkRequest(count=count, name=name)
        call = self._api.call(list[PodDetails], "POST", pod_route(self._container.pod, "/fork"), None, request)

        def lost(forks: builtins.list[PodDetails]) -> None:
            _unmake(self._api, *(fork.containers[0] for fork in forks))

        made = await self._within(timeout, "the fork", call, lost)
        return [type(self)(self._api, details.containers[0]) for details in made]

    # -- calls ---------------------------------------------------------------------------

    def _route(self, suffix: str = "") -> str:
        return container_route(self.id, suffix)

    async def _call(self, type_: type[T], method: str, route: str, body: Any = None, *, timeout: float, what: str) -> T:
        return await self._within(timeout, what, self._api.call(type_, method, route, None, body))

    async def _do(self, method: str, route: str, timeout: float, what: str) -> None:
        await self._within(timeout, what, self._api.do(method, route))


def last_seen(sandbox: AsyncSandbox) -> Container:
    """What hyperd said of it last."""
    return sandbox._container


def _unmake(api: Api, *containers: Container) -> None:
    """What was made for a caller who was cancelled at the same moment."""
    for container in containers:
        task = asyncio.create_task(AsyncSandbox(api, container).kill())
        _ending.add(task)
        task.add_done_callback(_ending.discard)


async def _next(lines: AsyncIterator[bytes]) -> bytes | None:
    return await anext(lines, None)
