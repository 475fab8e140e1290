# SPDX-License-Identifier: Apache-2.0
"""Typed requests and replies of the guest protocol."""

from __future__ import annotations

from dataclasses import dataclass

from .constants import Builtin, Capability, Seccomp, Tag
from .wire import Attrs, bounded, decode_attrs, number, required, text

_ID_MAX = 2**32 - 1  # a frame's id has 32 bits
_OFFSET_MAX = 2**62  # of a stream: what may still be added to it fits into 64 bits
_MS_MAX = 2**45  # a thousand years: added to a date it is one


@dataclass(frozen=True)
class Interface:
    """A network interface inside the pod; addresses are CIDR."""

    name: str
    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    mtu: int = 0
    down: bool = False  # take it down, and the addresses away
    mac: str = ""  # to be set; "" leaves the NIC's own

    def attrs(self) -> Attrs:
        out: Attrs = [(Tag.NAME, self.name), *([(Tag.DOWN, 1)] if self.down else [])]
        out += [(Tag.ADDRESS, a) for a in self.addresses]
        out += [(Tag.GATEWAY, g) for g in self.gateways]
        out += [(Tag.MAC, bytes.fromhex(self.mac.replace(":", "")))] if self.mac else []
        return out + ([(Tag.MTU, self.mtu)] if self.mtu else [])


@dataclass(frozen=True)
class GuestMount:
    """A mount inside the container; `flags` are Linux's MS_*.

    Of type MOUNT_VOLUME it binds a volume: `source` is its name, `data` a path in it.
    """

    type: str
    target: str
    source: str = ""
    flags: int = 0
    data: str = ""

    def attrs(self) -> Attrs:
        out: Attrs = [(Tag.FSTYPE, self.type), (Tag.TARGET, self.target), (Tag.FLAGS, self.flags)]
        out += [(Tag.SOURCE, self.source)] if self.source else []
        return out + ([(Tag.VALUE, self.data)] if self.data else [])


@dataclass(frozen=True)
class GuestFile:
    """A file bound over a path of the container."""

    target: str
    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0

    def attrs(self) -> Attrs:
        out: Attrs = [(Tag.TARGET, self.target), (Tag.CONTENT, self.content), (Tag.MODE, self.mode)]
        return [*out, (Tag.UID, self.uid), (Tag.GID, self.gid)] if self.uid or self.gid else out


@dataclass(frozen=True)
class GuestContainer:
    """CONTAINER_CREATE; disks are named by their virtio serial numbers."""

    id: str
    image_disk: str
    image_fstype: str
    scratch_disk: str = ""
    read_only: bool = False
    mounts: tuple[GuestMount, ...] = ()
    files: tuple[GuestFile, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    memory_max: int = 0  # bytes
    cpu_max: int = 0  # microseconds per 100 ms
    pids_max: int = 0
    prepared: str = ""  # the container that it is made of
    devices: bool = False  # it may open any device

    def attrs(self) -> Attrs:
        out: Attrs = [
            (Tag.ID, self.id),
            (Tag.IMAGE_DISK, self.image_disk),
            (Tag.FSTYPE, self.image_fstype),
            (Tag.READONLY, int(self.read_only)),
            (Tag.MEMORY_MAX, self.memory_max),
            (Tag.CPU_MAX, self.cpu_max),
            (Tag.PIDS_MAX, self.pids_max),
        ]
        out += [(Tag.SCRATCH_DISK, self.scratch_disk)] if self.scratch_disk else []
        out += [(Tag.PREPARED, self.prepared)] if self.prepared else []
        out += [(Tag.DEVICES, 1)] if self.devices else []
        out += [(Tag.MOUNT, m.attrs()) for m in self.mounts]
        out += [(Tag.FILE, f.attrs()) for f in self.files]
        out += [(Tag.SYSCTL, [(Tag.NAME, k), (Tag.VALUE, v)]) for k, v in self.sysctls]
        out += [(Tag.MASKED_PATH, p) for p in self.masked_paths]
        return out + [(Tag.READONLY_PATH, p) for p in self.readonly_paths]


@dataclass(frozen=True)
class GuestHook:
    """A program that is run in the container before the process's own; `path` is the container's."""

    path: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    input: str  # what it reads
    timeout: float  # seconds

    def attrs(self) -> Attrs:
        out: Attrs = [(Tag.SOURCE, self.path), (Tag.VALUE, self.input), (Tag.TIMEOUT, int(self.timeout * 1000))]
        return out + [(Tag.ARG, a) for a in self.args] + [(Tag.ENV, e) for e in self.env]


@dataclass(frozen=True)
class GuestProcess:
    """PROCESS_START; without a container it runs beside hyperstart."""

    args: tuple[str, ...]
    container: str = ""
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    groups: tuple[str, ...] = ()
    only_groups: bool = False  # and none that the container's own table has for the user
    tty: bool = False
    rows: int = 0
    columns: int = 0
    stdin: bool = False
    capabilities: int | None = None  # None: all
    ambient: int = 0  # those of them that its programs inherit, who is not root, too
    no_new_privs: bool = False
    rlimits: tuple[tuple[int, int, int], ...] = ()  # number, soft, hard
    main: bool = False
    builtin: Builtin | None = None
    seccomp: Seccomp = Seccomp.UNCONFINED
    filter: bytes = b""  # in its place: a program for seccomp(2), an array of struct sock_filter
    filter_flags: int = 0
    rehearsal: bool = False  # it is killed at its first system call with an effect
    own_pids: bool = False  # process 1 of a PID namespace of the container's own; of a main process and its rehearsal
    pids_of: str = ""  # of a main process: the container, which runs, in whose PID namespace it is
    init: bool = False  # below an init, which hands on signals and reaps
    hooks: tuple[GuestHook, ...] = ()

    def attrs(self) -> Attrs:
        out: Attrs = [(Tag.ARG, a) for a in self.args]
        out += [(Tag.ENV, e) for e in self.env]
        out += [(Tag.GROUP, g) for g in self.groups]
        out += [(Tag.CWD, self.cwd), (Tag.USER, self.user)]
        out += [(Tag.CONTAINER, self.container)] if self.container else []
        out += [(Tag.PIDS_OF, self.pids_of)] if self.pids_of else []
        flags = {
            Tag.TTY: self.tty,
            Tag.STDIN: self.stdin,
            Tag.NO_NEW_PRIVS: self.no_new_privs,
            Tag.MAIN: self.main,
            Tag.REHEARSAL: self.rehearsal,
            Tag.OWN_PIDS: self.own_pids,
            Tag.INIT: self.init,
            Tag.ONLY_GROUPS: self.only_groups,
        }
        out += [(tag, 1) for tag, on in flags.items() if on]
        if self.tty and self.rows:
            out += [(Tag.ROWS, self.rows), (Tag.COLUMNS, self.columns)]
        if self.capabilities is not None:
            out.append((Tag.CAPS, self.capabilities))
        if self.ambient:
            out.append((Tag.AMBIENT, self.ambient))
        if self.seccomp:
            out.append((Tag.SECCOMP, int(self.seccomp)))
        if self.filter:
            out += [(Tag.FILTER, self.filter), (Tag.FILTER_FLAGS, self.filter_flags)]
        if self.builtin:
            out.append((Tag.BUILTIN, int(self.builtin)))
        out += [(Tag.HOOK, h.attrs()) for h in self.hooks]
        return out + [(Tag.RLIMIT, [(Tag.ID, i), (Tag.SOFT, s), (Tag.HARD, h)]) for i, s, h in self.rlimits]


@dataclass(frozen=True)
class ExitStatus:
    """How a process ended: by an exit code, or by a signal."""

    code: int = 0
    signal: int = 0
    oom: bool = False

    @property
    def shell_code(self) -> int:
        """128 + n for signal n, as shells and Docker report it."""
        return 128 + self.signal if self.signal else self.code

    @classmethod
    def decode(cls, attrs: dict[int, bytes]) -> ExitStatus:
        """:raise ProtocolError: when it is no status that wait(2) gives."""
        return cls(
            code=bounded(attrs.get(Tag.CODE, bytes(8)), 255),
            signal=bounded(attrs.get(Tag.SIGNAL, bytes(8)), 127),
            oom=Tag.OOM in attrs,
        )


@dataclass(frozen=True)
class KnownProcess:
    """A process that the guest remembers, in the reply to HELLO."""

    id: int
    pid: int
    stdin_have: int
    stdin_eof: bool
    output_begins: tuple[int, int]  # offsets of the first bytes of stdout and stderr that the guest still has
    exit: ExitStatus | None


@dataclass(frozen=True)
class Limits:
    """CONTAINER_LIMIT: what a container may use from now on; 0 is no limit, None as it is."""

    memory_max: int | None = None  # bytes
    cpu_max: int | None = None  # microseconds per 100 ms
    pids_max: int | None = None

    def attrs(self) -> Attrs:
        given = (Tag.MEMORY_MAX, self.memory_max), (Tag.CPU_MAX, self.cpu_max), (Tag.PIDS_MAX, self.pids_max)
        return [(tag, value) for tag, value in given if value is not None]


def _capabilities(attrs: dict[int, bytes]) -> Capability:
    """Those that this hyperd knows of."""
    if Tag.CAPABILITIES not in attrs:
        return Capability.FREEZE
    return Capability(number(attrs[Tag.CAPABILITIES]) & sum(Capability))


@dataclass(frozen=True)
class Hello:
    """The reply to HELLO."""

    version: int
    kernel: str
    hyperstart: str
    uptime_ms: int
    capabilities: Capability = Capability.FREEZE  # of one that says nothing of them
    processes: tuple[KnownProcess, ...] = ()

    @classmethod
    def decode(cls, body: bytes) -> Hello:
        attrs: dict[int, bytes] = {}
        processes = []
        for tag, value in decode_attrs(body):
            if tag == Tag.PROCESS:
                p = dict(decode_attrs(value))
                ended = Tag.CODE in p or Tag.SIGNAL in p
                processes.append(
                    KnownProcess(
                        id=bounded(required(p, Tag.ID), _ID_MAX),
                        pid=bounded(required(p, Tag.PID), _ID_MAX),
                        stdin_have=bounded(required(p, Tag.STDIN_ACK), _OFFSET_MAX),
                        stdin_eof=bool(number(required(p, Tag.STDIN_EOF))),
                        output_begins=(
                            bounded(p.get(Tag.STDOUT_BEGIN, bytes(8)), _OFFSET_MAX),
                            bounded(p.get(Tag.STDERR_BEGIN, bytes(8)), _OFFSET_MAX),
                        ),
                        exit=ExitStatus.decode(p) if ended else None,
                    )
                )
            attrs[tag] = value
        return cls(
            version=number(required(attrs, Tag.VERSION)),
            kernel=text(required(attrs, Tag.KERNEL)),
            hyperstart=text(required(attrs, Tag.VALUE)),
            uptime_ms=bounded(required(attrs, Tag.UPTIME_MS), _MS_MAX),
            capabilities=_capabilities(attrs),
            processes=tuple(processes),
        )


@dataclass(frozen=True)
class ListedProcess:
    """One process of PROCESS_LIST; pids as the pod sees them, times in ms."""

    pid: int
    ppid: int
    uid: int
    start_ms: int
    cpu_ms: int
    container: str
    command: str


def decode_process_list(body: bytes) -> list[ListedProcess]:
    """:raise ProtocolError: when an entry is malformed."""
    out = []
    for tag, value in decode_attrs(body):
        if tag != Tag.PROCESS:
            continue
        p = dict(decode_attrs(value))
        out.append(
            ListedProcess(
                pid=number(required(p, Tag.PID)),
                ppid=number(required(p, Tag.PPID)),
                uid=number(required(p, Tag.UID)),
                start_ms=bounded(required(p, Tag.START_MS), _MS_MAX),
                cpu_ms=number(required(p, Tag.CPU_MS)),
                container=text(required(p, Tag.CONTAINER)),
                command=text(required(p, Tag.ARG)),
            )
        )
    return out
