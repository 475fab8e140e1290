# SPDX-License-Identifier: Apache-2.0
"""A daemon with all that it may have, and the same again from a backup of it, made while a pod runs."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from .conftest import BIN, DEADLINE, Daemon, launched, wait_for

PRICES = Path(__file__).parents[2] / "deploy/caas/prices.toml"
WRITES = "i=0; while :; do i=$((i+1)); echo $i > /data/new && mv /data/new /data/count; done"
ASKED: tuple[tuple[str, ...], ...] = (
    ("organisation", "ls", "--format", "json"), ("project", "ls", "--format", "json"), ("user", "ls"),
    ("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"), ("network", "ls", "-q"),
    ("token", "ls", "--format", "json"),
    ("volume", "inspect", "dir"), ("inspect", "done"), ("logs", "done"),
    ("billing", "prices"), ("billing", "account", "blue"), ("snapshot", "ls", "-q"),
    ("volume", "snapshot", "inspect", "kept"),
)  # fmt: skip


def answers(daemon: Daemon) -> dict[tuple[str, ...], str]:
    """To what people ask; each root has its own name."""
    return {args: daemon.out(*args).replace(str(daemon.root), "ROOT") for args in ASKED}


def fill(daemon: Daemon) -> None:
    daemon.ctl("pull", "-q", "builtin:busybox")
    daemon.ctl("organisation", "create", "blue")
    daemon.ctl("billing", "prices", PRICES)
    daemon.ctl("billing", "credit", "blue", "20")
    daemon.ctl("project", "create", "web", "--organisation", "blue")
    daemon.ctl("user", "create", "ann")
    daemon.ctl("organisation", "member", "put", "blue", "ann", "--role", "operator")
    daemon.ctl("--project", "web", "token", "create", "ci")
    daemon.ctl("volume", "create", "--size", "64m", "data")
    daemon.ctl("volume", "snapshot", "create", "-n", "kept", "data")
    daemon.ctl("volume", "create", "--driver", "directory", "dir")
    daemon.ctl("run", "--name", "done", "-v", "dir:/dir", "busybox", "sh", "-c", "echo said; echo kept > /dir/file")


def restored(file: Path, root: Path) -> subprocess.CompletedProcess[str]:
    command = [BIN / "hyperd", "--root", root, "--restore", file]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)


@pytest.mark.slow
def test_a_backup_of_a_daemon_whose_pod_writes_answers_as_that_did(tmp_path: Path) -> None:
    file, settings = tmp_path / "backup", tmp_path / "hyperd.toml"
    settings.write_text("metering = true\n")
    options = ("--no-factory", "--config", str(settings))
    with launched(tmp_path / "one", *options) as daemon:
        fill(daemon)
        daemon.ctl("run", "-d", "--name", "writer", "-v", "data:/data", "busybox", "sh", "-c", WRITES)
        wait_for(lambda: daemon.ctl("exec", "writer", "cat", "/data/count", check=False).returncode == 0, "it writes")
        before = int(daemon.out("exec", "writer", "cat", "/data/count"))
        daemon.ctl("exec", "writer", "sync")
        daemon.ctl("backup", "create", file)
        expected = answers(daemon)
        assert file.stat().st_mode & 0o777 == 0o600
        wait_for(lambda: int(daemon.out("exec", "writer", "cat", "/data/count")) > before, "it goes on")
        refused = restored(file, tmp_path / "one")
        assert refused.returncode == 1 and "another hyperd uses" in refused.stderr
        assert list((daemon.root / "cache").glob("backup-*")) == []
    told = restored(file, tmp_path / "two")
    assert told.returncode == 0 and "2 containers, 2 volumes" in told.stdout, told
    again = restored(file, tmp_path / "two")
    assert again.returncode == 1 and "is not empty" in again.stderr
    with launched(tmp_path / "two", *options) as daemon:
        found = answers(daemon)
        for asked, said in expected.items():
            assert found[asked] == said, asked
        assert daemon.out("usage", "--check").endswith("entries")
        assert daemon.out("inspect", "-f", "{{.State.Status}}", "writer") == "exited"
        volumes = ("-v", "data:/data", "-v", "dir:/dir")
        read = daemon.out("run", "--rm", *volumes, "busybox", "cat", "/data/count", "/dir/file")
        assert int(read.split()[0]) >= before and read.split()[1] == "kept"
        daemon.ctl("start", "writer")
        daemon.ctl("rm", "-f", "writer", "done")


def test_what_is_killed_leaves_nothing_half(tmp_path: Path) -> None:
    """hyperd while it makes a backup, and a restore in its midst."""
    root, file = tmp_path / "one", tmp_path / "backup"
    with tempfile.TemporaryDirectory(prefix="hye") as run, launched(root, "--no-factory", run=Path(run)) as daemon:
        daemon.ctl("volume", "create", "--driver", "directory", "dir")
        big = root / "volumes/dir/_data/big"
        big.write_bytes(random.Random(1).randbytes(16 << 20))
        making = subprocess.Popen(
            [BIN / "hyperctl", "backup", "create", file], env=daemon.environment, stderr=subprocess.PIPE
        )
        daemon.stop(signal.SIGKILL)
        status, said = making.wait(DEADLINE), making.stderr.read().decode() if making.stderr else ""
        assert (status == 0) == file.exists(), said
        making.communicate()
    with launched(root, "--no-factory") as daemon:
        assert list((root / "cache").glob("backup-*")) == []
        file.unlink(missing_ok=True)
        daemon.ctl("backup", "create", file)
    two = tmp_path / "two"
    restoring = subprocess.Popen([BIN / "hyperd", "--root", two, "--restore", "-"], stdin=subprocess.PIPE)
    assert restoring.stdin
    restoring.stdin.write(file.read_bytes()[: file.stat().st_size // 2])
    restoring.stdin.flush()
    wait_for((two / "state.db").exists, "the restore's first file")
    restoring.kill()
    restoring.communicate()
    refused = subprocess.run([BIN / "hyperd", "--root", two, "--run", tmp_path / "run"], capture_output=True, text=True,
                             timeout=DEADLINE, check=False)  # fmt: skip
    assert refused.returncode == 1 and f"a restore of {two} has not come to its end" in refused.stderr
    assert restored(file, two).returncode == 0
    assert (two / "volumes/dir/_data/big").read_bytes() == big.read_bytes()
    with launched(two, "--no-factory") as daemon:
        assert json.loads(daemon.out("volume", "inspect", "dir"))
