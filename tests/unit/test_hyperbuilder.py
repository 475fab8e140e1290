# SPDX-License-Identifier: Apache-2.0
"""The builder's image as an archive, and the relay in it, which carries bytes to a socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hyperbuilder import build

from hypercontainer.images.progress import Progress

from .test_bundles import sent
from .test_image_store import opened


async def test_the_archive_is_one_that_load_takes(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/sbin").mkdir(parents=True)
    (root / "usr/sbin/builder").write_text("#!/bin/sh\n")
    (root / "sbin").symlink_to("usr/sbin")
    diff_id = build.write_layer(root, tmp_path / "layer")
    build.write_archive(tmp_path / "layer", diff_id, "localhost/made:one", tmp_path / "image.tar")
    loaded = await opened(tmp_path / "store").loader.load(sent((tmp_path / "image.tar").read_bytes()), Progress())
    assert [each.names for each in loaded] == [["localhost/made:one"]]
    config = loaded[0].image.config
    assert (config.os, config.architecture) == ("linux", build.ARCHITECTURE)


def test_what_goes_into_the_image_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = build.key()
    assert build.key() == before
    monkeypatch.setattr(build, "SUITE", "another")
    assert build.key() != before


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("relay") / "relay"
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", build.TARGET, *build.FLAGS]
    subprocess.run([*compiler, build.HERE / "src/relay.c", "-o", made], check=True)
    return made


def begin(relay: Path, path: Path, seconds: int = 20) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen([relay, path, str(seconds)], stdin=pipe, stdout=pipe, stderr=pipe)


def listening(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    server.settimeout(20)
    return server


def test_the_relay_waits_for_who_listens(relay: Path, tmp_path: Path) -> None:
    process = begin(relay, tmp_path / "socket")
    with listening(tmp_path / "socket") as server, server.accept()[0] as peer:
        peer.sendall(b"hello")
        assert process.stdout and os.read(process.stdout.fileno(), 10) == b"hello"
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_the_end_of_input_leaves_the_answer_alone(relay: Path, tmp_path: Path) -> None:
    with listening(tmp_path / "socket") as server:
        process = begin(relay, tmp_path / "socket")
        with server.accept()[0] as peer:
            assert process.stdin
            process.stdin.write(b"question")
            process.stdin.close()
            process.stdin = None
            assert peer.makefile("rb").read() == b"question"
            peer.sendall(b"answer")
        assert process.communicate(timeout=20)[0] == b"answer"


def test_a_direction_that_nobody_reads_holds_up_no_other(relay: Path, tmp_path: Path) -> None:
    with listening(tmp_path / "socket") as server:
        process = begin(relay, tmp_path / "socket")
        with server.accept()[0] as peer:
            assert process.stdin and process.stdout
            os.set_blocking(process.stdin.fileno(), False)
            fill(process.stdin.fileno())
            peer.sendall(b"x" * 1000)
            assert os.read(process.stdout.fileno(), 2000) == b"x" * 1000
        process.kill()
        process.communicate(timeout=20)


def fill(pipe: int) -> None:
    """Until neither the pipe nor what is behind it takes more: the relay stands in the middle of a write."""
    quiet = 0
    while quiet < 20:
        try:
            os.write(pipe, b"y" * 65536)
            quiet = 0
        except BlockingIOError:
            quiet += 1
            os.sched_yield()


def test_nobody_listens(relay: Path, tmp_path: Path) -> None:
    process = begin(relay, tmp_path / "socket", 0)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, b"socket" in errors) == (1, True)


def _init(root: Path, dockerd: str) -> list[str | Path]:
    """The builder's process 1 as a command here: its paths are below `root`, and what it runs is made up."""
    text = (build.HERE / "init").read_text()
    for path in ("/var/lib/docker", "/etc/", "/run/", "/usr/sbin/", "/proc/sys/net/ipv4/"):
        (root / path.strip("/")).mkdir(parents=True, exist_ok=True)
        text = text.replace(path, f"{root}{path}")
    (programs := root / "programs").mkdir(exist_ok=True)
    nothing = dict.fromkeys(("iptables", "mount", "sync"), "")
    for name, body in {"dockerd": dockerd, "containerd": "exec sleep 1000", **nothing}.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    (root / "init").write_text(text)
    return ["unshare", "--pid", "--fork", "--kill-child", "env", f"PATH={programs}:{os.environ['PATH']}", "sh",
            root / "init"]  # fmt: skip


def test_a_cache_goes_whose_machine_did_not_end_in_order(tmp_path: Path) -> None:
    data = tmp_path / "var/lib/docker"
    waits = "trap 'touch $DATA/ended; exit 3' TERM; touch $DATA/file; echo ready; while :; do sleep 0.05; done"
    command = _init(tmp_path, waits.replace("$DATA", str(data)))
    for how, kept in ((signal.SIGKILL, False), (signal.SIGTERM, False), (signal.SIGKILL, True)):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout and process.stdout.readline() == b"ready\n"
            assert (data / "earlier").exists() is kept
            (data / "earlier").touch()
            (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(child), how)
            process.wait(10)
        assert (data / ".running").exists() is (how == signal.SIGKILL)
        assert (data / "ended").exists() is (how == signal.SIGTERM or kept)


def test_a_dockerd_that_fails_leaves_the_cache(tmp_path: Path) -> None:
    (tmp_path / "var/lib/docker").mkdir(parents=True)
    (tmp_path / "var/lib/docker/earlier").touch()
    assert subprocess.run(_init(tmp_path, "exit 1"), check=False, timeout=10).returncode == 0
    names = {path.name for path in (tmp_path / "var/lib/docker").iterdir()}
    assert "earlier" in names and ".running" not in names
