# SPDX-License-Identifier: Apache-2.0
"""Made of `sdk/sandbox.py` by scripts/make_sync_sdk.py: change that, and run it."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from ...model.lifetimes import LifetimeInfo, TtlAction
from ...model.snapshots import SnapshotInfo
from ...model.specs import ContainerSpec, PortMapping, PullPolicy
from ...model.statistics import ContainerStats
from ...model.status import Container
from ..interpreter import Kernel
from ..limits import DEFAULT, LONG
from ..portal import iterate, run
from ..results import CommandResult, Execution, LogLine
from ..sandbox import AsyncSandbox
from ..spec import Port, Volume
from .connection import Connection
from .files import Files
from .interpreter import Interpreter
from .process import Process
from .processes import Processes


class Sandbox:
    """A sandbox that runs; as a context it is removed at its end.

    Every method ends within its `timeout`, in seconds, and then says what it was that did not answer.
    """

    def __init__(self, wrapped: AsyncSandbox) -> None:
        self._wrapped = wrapped

    @classmethod
    def create(
        cls,
        image: str,
        *,
        command: Sequence[str] | None = None,
        name: str | None = None,
        cpus: float | None = None,
        memory: int | str | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        ports: Sequence[Port] = (),
        volumes: Sequence[Volume] = (),
        network: str | None = None,
        labels: Mapping[str, str] | None = None,
        pull: PullPolicy | None = None,
        keep: bool = False,
        ttl: float | None = None,
        idle_timeout: float | None = None,
        spec: ContainerSpec | None = None,
        host: str | None = None,
        timeout: float = 300.0,
    ) -> Sandbox:
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
        return Sandbox(
            run(
                AsyncSandbox.create(
                    image,
                    command=command,
                    name=name,
                    cpus=cpus,
                    memory=memory,
                    env=env,
                    workdir=workdir,
                    user=user,
                    ports=ports,
                    volumes=volumes,
                    network=network,
                    labels=labels,
                    pull=pull,
                    keep=keep,
                    ttl=ttl,
                    idle_timeout=idle_timeout,
                    spec=spec,
                    host=host,
                    timeout=timeout,
                )
            )
        )

    @classmethod
    def connect(cls, sandbox: str, *, host: str | None = None, timeout: float = DEFAULT) -> Sandbox:
        """One that is there, by its id or name. :raise NotFound: there is none."""
        return Sandbox(run(AsyncSandbox.connect(sandbox, host=host, timeout=timeout)))

    @classmethod
    def list(
        cls, *, labels: Mapping[str, str] | None = None, host: str | None = None, timeout: float = DEFAULT
    ) -> builtins.list[Sandbox]:
        """Those that there are, newest first, also what has stopped and was kept; with all of these labels."""
        return [Sandbox(each) for each in run(AsyncSandbox.list(labels=labels, host=host, timeout=timeout))]

    @classmethod
    def restore(cls, snapshot: str, *, name: str = "", host: str | None = None, timeout: float = 120.0) -> Sandbox:
        """One that goes on where a saved one was, by the snapshot's id or name. :raise NotFound: there is none."""
        return Sandbox(run(AsyncSandbox.restore(snapshot, name=name, host=host, timeout=timeout)))

    @property
    def id(self) -> str:
        """It stays the same."""
        return self._wrapped.id

    @property
    def name(self) -> str:
        """The one that was given, or a made-up one."""
        return self._wrapped.name

    @property
    def image(self) -> str:
        """As it was named."""
        return self._wrapped.image

    @property
    def labels(self) -> dict[str, str]:
        """Those that it was given."""
        return self._wrapped.labels

    @property
    def files(self) -> Files:
        """Its files."""
        return Files(self._wrapped.files)

    @property
    def processes(self) -> Processes:
        """Its processes."""
        return Processes(self._wrapped.processes)

    def info(self, *, timeout: float = DEFAULT) -> Container:
        """All that hyperd says of it, now. :raise NotFound: it was removed."""
        return run(self._wrapped.info(timeout=timeout))

    def is_running(self, *, timeout: float = DEFAULT) -> bool:
        """Whether it runs; one that was removed does not."""
        return run(self._wrapped.is_running(timeout=timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        run(self._wrapped.__aexit__(kind, _, __))

    def kill(self, *, timeout: float = DEFAULT) -> bool:
        """End it at once, and remove it with what it has written; False when it was gone."""
        return run(self._wrapped.kill(timeout=timeout))

    def set_lifetime(
        self,
        *,
        ttl: float | None = None,
        ttl_action: TtlAction | None = None,
        idle_timeout: float | None = None,
        timeout: float = DEFAULT,
    ) -> LifetimeInfo:
        """How long it is there: `ttl` seconds from now, 0 without end. What is over then is ended, or with
        `ttl_action="suspend"` stands still until `resume`. What is None stays as it was.
        """
        return run(
            self._wrapped.set_lifetime(ttl=ttl, ttl_action=ttl_action, idle_timeout=idle_timeout, timeout=timeout)
        )

    def run(
        self,
        command: str | Sequence[str],
        *,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str = "",
        user: str = "",
        check: bool = False,
        timeout: float = DEFAULT,
    ) -> CommandResult:
        """Run a command to its end; a text is the shell's, a sequence of words is a program. With the timeout, or
        when this call is cancelled, it is killed.

        :raise StartFailed: there is no such program. :raise CommandFailed: it did not end well, and `check` is given.
        :raise DeadlineExceeded: it has not ended in time.
        """
        return run(
            self._wrapped.run(command, input=input, env=env, workdir=workdir, user=user, check=check, timeout=timeout)
        )

    def exec(
        self,
        command: str | Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        workdir: str = "",
        user: str = "",
        stdin: bool = False,
        tty: bool = False,
        rows: int = 24,
        columns: int = 80,
        background: bool = False,
        timeout: float = DEFAULT,
    ) -> Process:
        """Begin a command, and return with it: its output is read, and its input written, as it runs. `tty`: it has a
        terminal of that size. `background`: it goes on when this program ends; else it is killed then.

        `timeout` is for its begin alone. That there is no such program is told when its output is read.
        """
        return Process(
            run(
                self._wrapped.exec(
                    command,
                    env=env,
                    workdir=workdir,
                    user=user,
                    stdin=stdin,
                    tty=tty,
                    rows=rows,
                    columns=columns,
                    background=background,
                    timeout=timeout,
                )
            )
        )

    def interpreter(
        self,
        *,
        kernel: Kernel = "auto",
        env: Mapping[str, str] | None = None,
        workdir: str = "",
        user: str = "",
        timeout: float = 120.0,
    ) -> Interpreter:
        """An interpreter of Python, with variables of its own: Jupyter's kernel where the image has `jupyter_client`
        and `ipykernel`, else the image's python3 alone; `kernel` may ask for one of them.

        :raise StartFailed: the image has no python3.
        """
        return Interpreter(
            run(self._wrapped.interpreter(kernel=kernel, env=env, workdir=workdir, user=user, timeout=timeout))
        )

    def run_code(self, code: str, *, timeout: float = DEFAULT) -> Execution:
        """Run Python code in the sandbox's own interpreter, which is begun by the first call; variables stay, until it
        ends. What the code raises is in what this gives.

        :raise DeadlineExceeded: it took too long, and could not be interrupted.
        """
        return run(self._wrapped.run_code(code, timeout=timeout))

    def ports(self, *, timeout: float = DEFAULT) -> builtins.list[PortMapping]:
        """What is published of it, with the ports of the host."""
        return run(self._wrapped.ports(timeout=timeout))

    def address(self, port: int, *, timeout: float = DEFAULT) -> tuple[str, int]:
        """Where one of its ports is published: an address of the host and a port.

        :raise NotFound: it is not published.
        """
        return run(self._wrapped.address(port, timeout=timeout))

    def dial(self, port: int, *, timeout: float = DEFAULT) -> Connection:
        """A connection to one of its ports, published or not. That nobody listens is told when it is read."""
        return Connection(run(self._wrapped.dial(port, timeout=timeout)))

    def metrics(self, *, timeout: float = DEFAULT) -> ContainerStats:
        """What it uses, now."""
        return run(self._wrapped.metrics(timeout=timeout))

    def logs(self, *, follow: bool = False, tail: int | None = None, timeout: float = LONG) -> Iterator[LogLine]:
        """Lines that its own program has written (what is run in it later has output of its own); `tail`: the last so
        many; `follow`: and what comes, to its end. `timeout`: seconds in all.
        """
        return iterate(self._wrapped.logs(follow=follow, tail=tail, timeout=timeout))

    def pause(self, *, timeout: float = DEFAULT) -> None:
        """All of its programs stand still, and take no CPU; its memory stays."""
        run(self._wrapped.pause(timeout=timeout))

    def suspend(self, *, timeout: float = 120.0) -> None:
        """The same, on the disk: it takes no memory.

        :raise Unsupported: it cannot be. :raise NoSpace: the disk is full; it runs on.
        """
        run(self._wrapped.suspend(timeout=timeout))

    def resume(self, *, timeout: float = 120.0) -> None:
        """They go on, from a pause or from the disk. :raise InvalidState: they run."""
        run(self._wrapped.resume(timeout=timeout))

    def set_egress(self, hosts: Sequence[str] | None, *, timeout: float = DEFAULT) -> None:
        """What it may reach from now on: these hosts by name, as `--allow-host` has them, or with None everything.

        Connections that stay allowed go on, others are ended. :raise Unsupported: its network has no such rules.
        """
        run(self._wrapped.set_egress(hosts, timeout=timeout))

    def snapshot(self, name: str = "", *, timeout: float = 120.0) -> SnapshotInfo:
        """Save its memory, its disks and its programs at one instant; it runs on. See `restore`."""
        return run(self._wrapped.snapshot(name, timeout=timeout))

    def fork(self, count: int = 1, *, name: str = "", timeout: float = 120.0) -> builtins.list[Sandbox]:
        """New ones that go on where this one is now, programs and all; it runs on. `name`: theirs, with a number."""
        return [Sandbox(each) for each in run(self._wrapped.fork(count, name=name, timeout=timeout))]
