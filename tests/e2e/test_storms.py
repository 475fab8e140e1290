# SPDX-License-Identifier: Apache-2.0
"""hyperd killed at any instant of any verb: the next one owns all that is left, or ends it.

`make storms` asks for 200 kills; the suite for a few. HYPER_TEST_SEED repeats one.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .conftest import BIN, Daemon, launched
from .test_networks import namespaces

STORM = int(os.environ.get("HYPER_TEST_STORM", "6"))
SEED = int(os.environ.get("HYPER_TEST_SEED", "0")) or random.randrange(1, 1 << 30)
VERBS = (
    ("run", "-d", "--name", "box{n}", "busybox", "sleep", "1000"),
    ("run", "-d", "--name", "web{n}", "-p", "80", "-v", "data{n}:/data", "busybox", "sleep", "1000"),
    ("run", "--rm", "--name", "short{n}", "busybox", "true"),
    ("run", "--rm", "--name", "fresh{n}", "--isolation", "fresh", "busybox", "true"),
    ("create", "--name", "made{n}", "busybox", "true"),
    ("start", "kept"),
    ("stop", "-t", "0", "kept"),
    ("rm", "-f", "old"),
    ("exec", "kept", "sleep", "100"),
    ("pull", "-q", "builtin:busybox"),
    ("network", "create", "net{n}"),
    ("volume", "create", "vol{n}"),
    ("factory", "warm", "-n", "2"),
)


@contextmanager
def verbs(daemon: Daemon, chosen: list[tuple[str, ...]], n: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Commands on their way; they end at the latest with the block."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    words = [[w.format(n=n) for w in verb] for verb in chosen]
    clients = [subprocess.Popen([BIN / "hyperctl", *w], env=daemon.environment, **quiet) for w in words]
    try:
        yield clients
    finally:
        for client in clients:
            client.kill()
            client.wait(10)


def test_kills_in_the_midst_of_verbs(tmp_path: Path) -> None:
    print(f"HYPER_TEST_SEED={SEED}")
    chance = random.Random(SEED)
    root = tmp_path / "root"
    with namespaces("storm") as name, tempfile.TemporaryDirectory(prefix="hye") as run:
        launch = {"run": Path(run), "prefix": ("ip", "netns", "exec", name)}
        options = ("--network", "bridge")
        for n in range(STORM):
            with launched(root, *options, **launch) as daemon:  # type: ignore[arg-type]
                if n == 0:
                    daemon.ctl("pull", "-q", "builtin:busybox")
                    daemon.ctl("create", "--name", "kept", "busybox", "sleep", "1000")
                daemon.world.check()
                caught = [c["name"] for c in inspect_all(daemon) if c["name"].startswith(("short", "fresh"))]
                assert caught == [], "run --rm leaves no container, whenever hyperd was killed"
                daemon.ctl("create", "--name", "old", "busybox", "true", check=False)
                with verbs(daemon, chance.sample(VERBS, 4), n) as clients:
                    with suppress(subprocess.TimeoutExpired):
                        clients[0].wait(chance.uniform(0.05, 1.2))
                    daemon.process.kill()
                    daemon.process.wait(10)
        with launched(root, *options, **launch) as daemon:  # type: ignore[arg-type]
            daemon.remove_all()
            daemon.ctl("network", "prune", "-f")
            daemon.ctl("volume", "prune", "-f", "--all")
            daemon.world.check()
            daemon.stop()
            assert daemon.world.nothing() == []
        links = subprocess.run(["ip", "-n", name, "-br", "link"], capture_output=True, text=True, check=True).stdout
        assert links.count("\n") == 2, links


def inspect_all(daemon: Daemon) -> list[dict[str, object]]:
    ids = daemon.out("ps", "-aq").split()
    found: list[dict[str, object]] = json.loads(daemon.out("inspect", *ids)) if ids else []
    return found
