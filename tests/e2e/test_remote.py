# SPDX-License-Identifier: Apache-2.0
"""hyperctl and hyperd by TCP, as they are installed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.registry import free_port

from .conftest import BIN, DEADLINE, Daemon, launched


@dataclass
class Remote:
    """A daemon, and what a client of it has elsewhere."""

    daemon: Daemon
    environment: dict[str, str]

    def ctl(self, *args: str | Path, input: bytes = b"", **more: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [BIN / "hyperctl", *args], env=self.environment | more, capture_output=True, timeout=DEADLINE, input=input,
            check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    directory = tmp_path_factory.mktemp("remote")
    ca = Authority(directory / "ca")
    server, port = ca.sign("server", server=True), free_port()
    config = directory / "hyperd.toml"
    config.write_text(
        f'listen = ["tcp://127.0.0.1:{port}"]\ntlscert = "{server.cert}"\ntlskey = "{server.key}"\n'
        f'tlscacert = "{ca.cert}"\nclients = {{ "watcher" = ["read"], "*" = [] }}\n'
    )
    with launched(directory / "root", "--config", str(config)) as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        plain = {k: v for k, v in os.environ.items() if not k.startswith("HYPER_")}
        environment = plain | {"HYPER_HOST": f"tcp://localhost:{port}", "HYPER_TLSCACERT": str(ca.cert)}
        watcher = ca.sign("watcher")
        found = Remote(daemon, environment | {"HYPER_TLSCERT": str(watcher.cert), "HYPER_TLSKEY": str(watcher.key)})
        found.environment["HYPER_TOKEN"] = daemon.out("token", "create", "me")
        yield found


def test_run_and_exec_by_a_token(remote: Remote) -> None:
    done = remote.ctl("run", "--rm", "-i", "busybox", "sh", "-c", "cat; exit 7", input=b"by TLS\n" * 100_000)
    assert (done.returncode, len(done.stdout), done.stderr) == (7, 700_000, b"")
    assert remote.ctl("run", "-d", "--name", "far", "busybox", "sleep", "1000").returncode == 0
    done = remote.ctl("exec", "far", "echo", "hello")
    assert (done.returncode, done.stdout) == (0, b"hello\n")
    assert b"far" in remote.ctl("ps").stdout
    assert remote.ctl("rm", "-f", "far").returncode == 0


def test_the_host_is_not_a_remote_callers(remote: Remote) -> None:
    for options in (["-v", "/etc:/host"], ["--log-driver", "syslog"], ["--network", "user:host-loopback"]):
        done = remote.ctl("run", "--rm", *options, "busybox", "true")
        assert done.returncode == 125 and b"takes the scope `host`" in done.stderr, done.stderr
    assert b"takes the scope `admin`" in remote.ctl("token", "ls").stderr
    remote.daemon.ctl("token", "create", "both", "-s", "operate", "-s", "host")
    told = remote.daemon.out("token", "ls", "-f", "{{.name}} {{.scopes}}").splitlines()
    assert len(told) == 2 and remote.environment["HYPER_TOKEN"] not in remote.daemon.out("token", "ls", "-f", "json")


def test_a_certificate_by_itself(remote: Remote) -> None:
    environment = {k: v for k, v in remote.environment.items() if k != "HYPER_TOKEN"}
    watcher = Remote(remote.daemon, environment)
    assert watcher.ctl("ps").returncode == 0
    done = watcher.ctl("run", "--rm", "busybox", "true")
    assert done.returncode == 125 and b"`operate`, which cert:watcher does not have" in done.stderr


def test_a_token_of_a_file_and_one_that_was_revoked(remote: Remote, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(remote.daemon.out("token", "create", "brief", "--scope", "read"))
    assert remote.ctl("--token-file", file, "ps").returncode == 0
    assert remote.daemon.out("token", "revoke", "brief") == "brief"
    done = remote.ctl("--token-file", file, "ps")
    assert done.returncode == 1 and b"the token is not known" in done.stderr
