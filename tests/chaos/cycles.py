# SPDX-License-Identifier: Apache-2.0
"""Many starts and stops of one container, then many pods at once: nothing may be there afterwards that was not before.

`python -m tests.chaos.cycles [--cycles N] [--pods N]`, or `make cycles`; a few are in tests/e2e/test_chaos.py.
"""

from __future__ import annotations

import argparse
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from .host import SLOW, Host, host

_STATE = "files of its state"
_AT_A_TIME = 8  # pods that are started
_WARM_UP = 5  # cycles after which all has been used once
_THREADS = 36  # the executor's, of which it makes more as they are needed, and the first
_GROWTH = 24 << 20  # bytes of hyperd's memory, however many cycles


class Account(dict[str, int]):
    """How many of each kind; and which files."""

    files: frozenset[str] = frozenset()


def account(host: Host) -> Account:
    """How much there is of what could be too much."""
    daemon, pid = host.daemon, host.daemon.process.pid
    mounts = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    files = frozenset(str(p.relative_to(daemon.root)) for p in daemon.root.rglob("*") if p.is_file())
    counted = {
        "descriptors of hyperd": len(os.listdir(f"/proc/{pid}/fd")),
        "threads of hyperd": len(os.listdir(f"/proc/{pid}/task")),
        "children of hyperd": len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()),
        "mounts": sum(str(host.place) in line or str(daemon.run) in line for line in mounts),  # others have theirs
        _STATE: len(files),
        "files of its machines": sum(1 for p in (daemon.run / "pods").rglob("*")),
        "links": _host(host, "ip", "-br", "link").count("\n"),
        "rules": len(re.findall(r"\n", _host(host, "nft", "list", "ruleset"))),
        "control groups": sum(1 for p in Path("/sys/fs/cgroup").rglob(f"*{daemon.run.name}*")),
    }
    with sqlite3.connect(f"file:{daemon.root / 'state.db'}?mode=ro", uri=True) as db:
        tables = [r[0] for r in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        counted |= {f"rows of {t}": db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in sorted(tables)}
    db.close()
    counted.pop("rows of events", None)  # they are bounded in number and age
    counted["rows of unfinished"] = max(1, counted["rows of unfinished"])  # the last goes with the next change
    counted["threads of hyperd"] = max(_THREADS, counted["threads of hyperd"])
    found = Account(counted)
    found.files = files
    return found


def memory(host: Host) -> int:
    """Bytes that hyperd holds."""
    status = Path(f"/proc/{host.daemon.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) << 10


def same(host: Host, before: Account) -> None:
    """Nothing more than before, once what has ended is gone.

    :raise AssertionError: there is, with what and how much.
    """
    end = time.monotonic() + SLOW
    while True:
        now = account(host)
        if not (more := {k: (before.get(k, 0), n) for k, n in now.items() if n > before.get(k, 0)}):
            break
        files = sorted(now.files - before.files) if _STATE in more else []
        assert time.monotonic() < end, f"more than before: {more} {files}"
        time.sleep(0.2)
    host.daemon.world.check(deadline=SLOW)


def cycles(host: Host, number: int) -> int:
    """So many starts and stops; bytes by which hyperd grew."""
    host.daemon.ctl("create", "--name", "box", "-v", "data:/data", "-p", "8000:80", "busybox", "sleep", "100000")
    for n in range(_WARM_UP + number):
        if n == _WARM_UP:
            same_as, held = _quiet(host), memory(host)
        host.daemon.ctl("start", "box")
        host.daemon.ctl("stop", "-t", "0", "box")
        if n % 50 == 49:
            print(f"{n + 1} cycles, {memory(host) >> 20} MiB", flush=True)
    same(host, same_as)
    grown = memory(host) - held
    host.daemon.ctl("rm", "box")
    host.daemon.ctl("volume", "rm", "data")
    assert grown < _GROWTH, f"hyperd grew by {grown >> 10} KiB in {number} cycles"
    return grown


def pods(host: Host, number: int) -> int:
    """So many at once; bytes by which hyperd is larger when they have gone."""
    host.daemon.ctl("run", "--rm", "busybox", "true")  # what such machines are cloned from is made, and stays
    same_as, held = _quiet(host), memory(host)
    names = [f"pod{n}" for n in range(number)]
    with ThreadPoolExecutor(_AT_A_TIME) as executor:
        for _ in executor.map(lambda n: host.daemon.ctl("run", "-d", "--name", n, "busybox", "sleep", "100000"), names):
            pass
    running = host.daemon.out("ps", "-q").count("\n") + 1
    assert running == number, f"{running} of {number} run"
    print(f"{number} pods run, hyperd holds {memory(host) >> 20} MiB", flush=True)
    host.daemon.ctl("rm", "-f", *names)
    same(host, same_as)
    return memory(host) - held


def _quiet(host: Host) -> Account:
    """The account when it stays what it is for two seconds: the factory's machines are made by then."""
    end, last, since = time.monotonic() + SLOW, account(host), time.monotonic()
    while time.monotonic() - since < 2:
        assert time.monotonic() < end, f"it does not come to rest: {last}"
        time.sleep(0.2)
        if (now := account(host)) != last:
            last, since = now, time.monotonic()
    return last


def quiet_host(place: Path) -> AbstractContextManager[Host]:
    """One whose machines are clones: how many wait in a pool changes with what was started last."""
    return host(place, f"y{os.getpid()}", pool="0")


def _host(host: Host, *command: str) -> str:
    words = ["ip", "netns", "exec", host.namespace, *command]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.cycles", description=__doc__)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hyper-cycles-") as place, quiet_host(Path(place)) as made:
        grown = cycles(made, options.cycles) if options.cycles else 0
        print(f"{options.cycles} cycles: nothing too many, hyperd grew by {grown >> 10} KiB", flush=True)
        grown = pods(made, options.pods) if options.pods else 0
        print(f"{options.pods} pods at once: nothing too many, hyperd grew by {grown >> 10} KiB", flush=True)
        print(*(f"{n:6} {what}" for what, n in account(made).items()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
