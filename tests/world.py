# SPDX-License-Identifier: Apache-2.0
"""The world's account: everything that a daemon made has an owner, and every record has its thing.

Compares records (the database), directories, processes, taps, bridges and rules as anybody on the host sees
them; it knows nothing of the engine's classes. Run at the end of every test of the tiers `vm` and `e2e`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

QUIET_TIMEOUT = 20.0  # seconds in which what has ended may still be going
FACTORY = ("pool-", "make-", "probe")  # directories of machines that wait, or that are no container's
_TAP = re.compile(r'"(ht[0-9a-f]{11,13})"')


@dataclass
class Records:
    """What the database says."""

    containers: dict[str, dict[str, Any]] = field(default_factory=dict)
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)
    networks: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def running(self) -> dict[str, dict[str, Any]]:
        """Pods that have a VM, by the name of its directory."""
        return {id_[:12]: p for id_, p in self.pods.items() if p.get("vm")}


@dataclass
class Process:
    """One that has to do with the daemon's files."""

    pid: int
    command: str
    files: set[str]
    taps: set[str]

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command[:120]})"


class World:
    """One daemon's state, `root`, and its run-time files, `run`."""

    def __init__(self, root: Path, run: Path, *, daemon: int = 0) -> None:
        """`daemon` is hyperd's process, whose network namespace is looked at; 0: the test is the daemon itself."""
        self.root, self.run = root.resolve(), run.resolve()
        self._daemon = daemon

    def check(self, *, deadline: float = QUIET_TIMEOUT) -> None:
        """Nothing is without an owner; what is ending may take until the deadline, in seconds."""
        end = time.monotonic() + deadline
        while found := self.unowned():
            assert time.monotonic() < end, "without an owner:\n  " + "\n  ".join(found)
            time.sleep(0.1)

    def unowned(self) -> list[str]:
        """A sentence for each thing without an owner and each record without its thing."""
        records = self.records()
        processes = list(self._processes())
        found = [*self._records_alone(records), *self._directories(records), *self._zombies()]
        found += self._of_processes(records, processes)
        found += self.groups_alone(records, self._groups())
        if self._in_own_network():
            try:
                found += self._links(records, processes)
            except subprocess.CalledProcessError as error:  # nft gives up where the rules change under its eyes
                found.append(f"{error}: {error.stderr}")
        return found

    def nothing(self) -> list[str]:
        """A sentence for each thing that is left when the daemon is gone and everything was stopped."""
        return (
            [f"{p} outlived its daemon" for p in self._processes()]
            + [f"{d} is left" for d in _entries(self.run / "pods") if d.is_dir()]
            + [f"control group {name} is left" for name in self._groups()]
        )

    # -- what there is -------------------------------------------------------------------------

    def records(self) -> Records:
        if not self._database.exists():
            return Records()
        with self._opened() as db:
            tables = ("containers", "pods", "volumes", "networks")
            rows = {t: {r[0]: json.loads(r[1]) for r in db.execute(f"SELECT id, document FROM {t}")} for t in tables}
            return Records(**rows)

    def documents(self, table: str) -> list[dict[str, Any]]:
        """All records of one kind."""
        with self._opened() as db:
            return [json.loads(row[0]) for row in db.execute(f"SELECT document FROM {table}")]

    @property
    def _database(self) -> Path:
        return self.root / "state.db"

    def _opened(self) -> contextlib.closing[sqlite3.Connection]:
        return contextlib.closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True, timeout=10))

    def _processes(self) -> Iterator[Process]:
        ours = {os.getpid(), os.getppid(), self._daemon}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal() or int(entry.name) in ours:
                continue
            try:
                process = self._look(entry)
            except OSError:  # it ended, or is a kernel thread
                continue
            if process:
                yield process

    def _zombies(self) -> Iterator[str]:
        """Machines of this daemon's that have ended, and whose end it has not heard of."""
        parent = str(self._daemon or os.getpid())
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                name, _, rest = (
                    (entry / "stat").read_text().rpartition(") ") if entry.name.isdecimal() else ("", "", "")
                )
                if rest.split()[:2] == ["Z", parent] and "(hyper-" in name:
                    yield f"{name}) has ended, and nobody waits for it"

    def _look(self, entry: Path) -> Process | None:
        command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        if not command or "hyperctl" in command or "pytest" in command:
            return None
        files, taps = set(), set()
        for fd in (entry / "fd").iterdir():
            target = os.readlink(fd)
            files.add(target)
            if target.endswith("/net/tun"):  # all of its path only while the mount namespace of who opened it is there
                info = (entry / "fdinfo" / fd.name).read_text()
                taps |= set(re.findall(r"^iff:\s*(\S+)", info, re.M))
        mine = (f"{self.run}/", f"{self.root}/")
        words = command.split()
        if any(m in command for m in mine) or any(f.startswith(mine) for f in files):
            return Process(int(entry.name), command, files | set(words), taps)
        return None

    def _in_own_network(self) -> bool:
        """Only a daemon in a namespace of its test's own has links and rules that are all its own."""
        return bool(self._daemon) and os.readlink(f"/proc/{self._daemon}/ns/net") != os.readlink("/proc/self/ns/net")

    def _host(self, *command: str) -> str:
        full = ["nsenter", "-t", str(self._daemon), "-n", *command]
        return subprocess.run(full, capture_output=True, text=True, timeout=30, check=True).stdout

    # -- what is wrong ---------------------------------------------------------------------------

    def _records_alone(self, records: Records) -> Iterator[str]:
        for id_, container in records.containers.items():
            if container["pod"] not in records.pods:
                yield f"container {container['name']} has no pod"
            if not (self.root / "containers" / id_).is_dir():
                yield f"container {container['name']} has no directory"
        members = {c["pod"] for c in records.containers.values()}
        for id_, pod in records.pods.items():
            if pod.get("implicit") and id_ not in members:
                yield f"pod {pod['name']} was a container's own, which is gone"
        for short, pod in records.running.items():
            known = pod["vm"].get("handle") or pod["vm"]
            if not _alive(known["pid"], known["pidStarted"]):
                yield f"pod {pod['name']} has the record of a machine that has ended"
            if not (self.run / "pods" / short).is_dir():
                yield f"pod {pod['name']} runs without its directory"

    def _directories(self, records: Records) -> Iterator[str]:
        for path in _entries(self.run / "pods"):
            if path.name not in records.running and not path.name.startswith(FACTORY):
                yield f"{path} belongs to no pod that runs"
        volumes = {v["name"] for v in records.volumes.values()}
        for directory, owners in (("containers", records.containers), ("pods", records.pods), ("volumes", volumes)):
            for path in _entries(self.root / directory):
                if path.name not in owners:
                    yield f"{path} belongs to no record"
        waiting = [p for p in _entries(self.run / "pods") if p.name.startswith("pool-")]
        disks = _entries(self.root / "waiting")
        if len(disks) > len(waiting):
            yield f"{len(disks)} disks wait for {len(waiting)} machines"
        for path in [*_entries(self.root / "images/staging"), *(self.root / "images/disks").glob("*.tmp")]:
            yield f"{path} is half-made"
        for kept in ("snapshots", "volume-snapshots"):
            yield from (f"{path} is half-made" for path in (self.root / kept).glob(".*"))
        mounts = Path(f"/proc/{self._daemon or 'self'}/mountinfo").read_text()
        for line in mounts.splitlines() if str(self.root) in mounts or str(self.run) in mounts else ():
            where = line.split()[4]
            if where.startswith((f"{self.run}/", f"{self.root}/")):
                yield f"{where} is mounted"

    def groups_alone(self, records: Records, groups: set[str]) -> Iterator[str]:
        """Control groups without a machine, and machines without theirs; `groups` is what the host has."""
        owned = {p["vm"].get("allotment", "") for p in records.running.values()} - {""}
        waiting = {p.name for p in _entries(self.run / "pods") if p.name.startswith(FACTORY)}
        for name in groups - owned:
            if name.rpartition(".")[0] not in waiting:
                yield f"control group {name} belongs to no machine"

    def _groups(self) -> set[str]:
        """Those of this daemon's machines, in any hierarchy: PARENT/DIGEST OF run/NAME below the daemon's own."""
        daemon = hashlib.sha256(str(self.run).encode()).hexdigest()[:8]
        found = set()
        for place, below, _ in os.walk("/sys/fs/cgroup"):  # others' come and go meanwhile
            if place.endswith(f"/hyper/{daemon}"):
                found |= set(below)
        return found

    def _of_processes(self, records: Records, processes: list[Process]) -> Iterator[str]:
        base = f"{self.run}/pods/"
        owned = {*records.running}
        machines = set()
        for process in processes:
            homes = {f.split(base, 1)[1].split("/")[0].split(",")[0] for f in process.files if base in f}
            machines |= homes
            if not homes:
                yield f"{process} belongs to no machine"
            for home in homes:
                if home not in owned and not home.startswith(FACTORY):
                    yield f"{process} belongs to {home}, which is no pod that runs"
                elif not (self.run / "pods" / home).is_dir():
                    yield f"{process} runs without its directory {home}"
        for path in _entries(self.run / "pods"):
            if path.name.startswith(FACTORY) and path.name not in machines:
                yield f"{path} waits without a machine"

    def _links(self, records: Records, processes: list[Process]) -> Iterator[str]:
        held = set().union(*(p.taps for p in processes))
        links = {
            x["ifname"]: x.get("linkinfo", {}).get("info_kind", "")
            for x in json.loads(self._host("ip", "-j", "-d", "link"))
        }
        for name, kind in links.items():
            if kind == "tun" and name not in held:
                yield f"tap {name} is held by no machine"
        bridges = {n["bridge"] for n in records.networks.values()}
        for name in (n for n, kind in links.items() if kind == "bridge" and n.startswith("hy-")):
            if name not in bridges:
                yield f"bridge {name} belongs to no network"
        rules = self._host("nft", "list", "ruleset")
        mine = {a["tap"] for p in records.running.values() for a in p.get("attachments", [])}
        named = set(_TAP.findall(rules))
        for name in named - mine:
            yield f"rules name {name}, a tap of no pod that runs"
        for name in mine - named:
            yield f"tap {name} has no guarding rules"


def _entries(path: Path) -> list[Path]:
    try:
        return [path / name for name in sorted(os.listdir(path))]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _alive(pid: int, started: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return int(stat[19]) == started
