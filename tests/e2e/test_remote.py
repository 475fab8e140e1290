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
    docker: dict[str, str]  # what Docker's client is told

    def ctl(self, *args: str | Path, input: bytes = b"", **more: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [BIN / "hyperctl", *args], env=self.environment | more, capture_output=True, timeout=DEADLINE, input=input,
            check=False,
        )  # fmt: skip


def _docker_files(ca: Authority, name: str) -> Path:
    """A directory with the names that Docker's client looks for."""
    directory, pair = ca.cert.parent / f"docker-{name}", ca.sign(name)
    directory.mkdir()
    for name_there, file in (("ca.pem", ca.cert), ("cert.pem", pair.cert), ("key.pem", pair.key)):
        (directory / name_there).write_bytes(file.read_bytes())
    return directory


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    directory = tmp_path_factory.mktemp("remote")
    ca = Authority(directory / "ca")
    server, port, docker_port = ca.sign("server", server=True), free_port(), free_port()
    config = directory / "hyperd.toml"
    config.write_text(
        f'listen = ["tcp://127.0.0.1:{port}"]\ntlscert = "{server.cert}"\ntlskey = "{server.key}"\n'
        f'tlscacert = "{ca.cert}"\nclients = {{ "watcher" = ["read"], "worker" = ["operate"], "*" = [] }}\n'
        f'docker_listen = ["tcp://127.0.0.1:{docker_port}"]\n'
    )
    with launched(directory / "root", "--config", str(config)) as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        plain = {k: v for k, v in os.environ.items() if not k.startswith("HYPER_")}
        environment = plain | {"HYPER_HOST": f"tcp://localhost:{port}", "HYPER_TLSCACERT": str(ca.cert)}
        watcher = ca.sign("watcher")
        docker = plain | {"DOCKER_HOST": f"tcp://localhost:{docker_port}", "DOCKER_TLS_VERIFY": "1"}
        docker |= {"DOCKER_CERT_PATH": str(_docker_files(ca, "worker")), "DOCKER_CONFIG": str(directory)}
        docker["NOBODY"] = str(_docker_files(ca, "nobody"))
        own = {"HYPER_TLSCERT": str(watcher.cert), "HYPER_TLSKEY": str(watcher.key)}
        found = Remote(daemon, environment | own, docker)
        found.environment["HYPER_TOKEN"] = daemon.out("token", "create", "me")
        yield found


def _docker(remote: Remote, *args: str, input: bytes = b"", **more: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["docker", *args], env=remote.docker | more, capture_output=True, timeout=DEADLINE, input=input, check=False
    )


def test_docker_s_client_by_tls(remote: Remote) -> None:
    """Its half of an attached connection ends first: what the program writes then still comes."""
    done = _docker(remote, "run", "--rm", "-i", "busybox", "cat", input=b"hi\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hi\n", b"")
    assert _docker(remote, "run", "-d", "--name", "d", "busybox", "sleep", "1000").returncode == 0
    data = bytes(range(256)) * 8192  # 2 MiB
    done = _docker(remote, "exec", "-i", "d", "sh", "-c", "cat; echo after the end; exit 3", input=data)
    assert done.returncode == 3 and done.stdout == data + b"after the end\n", done.stderr
    assert b" d\n" in _docker(remote, "ps").stdout
    done = _docker(remote, "run", "--rm", "-v", "/etc:/host", "busybox", "true")
    assert done.returncode == 125 and b"takes the scope `host`" in done.stderr, done.stderr
    assert _docker(remote, "rm", "-f", "d").returncode == 0


def test_docker_s_client_without_a_certificate_that_counts(remote: Remote, tmp_path: Path) -> None:
    """None, one that may do nothing, and no TLS."""
    ca = Path(remote.docker["DOCKER_CERT_PATH"]) / "ca.pem"
    (tmp_path / "ca.pem").write_bytes(ca.read_bytes())
    done = _docker(remote, "ps", DOCKER_CERT_PATH=str(tmp_path))
    assert done.returncode == 1 and b"certificate required" in done.stderr, done.stderr
    done = _docker(remote, "ps", DOCKER_CERT_PATH=remote.docker["NOBODY"])
    assert done.returncode == 1 and b"takes the scope `read`, which cert:nobody does not have" in done.stderr
    done = _docker(remote, "ps", DOCKER_TLS_VERIFY="")
    assert done.returncode == 1 and b"EOF" in done.stderr, done.stderr


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
    assert b"takes the scope `manage`" in remote.ctl("token", "ls").stderr
    remote.daemon.ctl("token", "create", "both", "-s", "operate", "-s", "host")
    told = remote.daemon.out("token", "ls", "-f", "{{.name}} {{.scopes}}").splitlines()
    assert len(told) == 2 and remote.environment["HYPER_TOKEN"] not in remote.daemon.out("token", "ls", "-f", "json")


def test_a_certificate_by_itself(remote: Remote) -> None:
    environment = {k: v for k, v in remote.environment.items() if k != "HYPER_TOKEN"}
    watcher = Remote(remote.daemon, environment, {})
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
