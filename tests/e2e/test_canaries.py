# SPDX-License-Identifier: Apache-2.0
"""Secrets are nowhere where they need not be: not in arguments, environments, logs, answers or files of the host.

A canary is planted as every secret that there is, on a daemon that tells all that it knows (`log_level = "debug"`).
"""

from __future__ import annotations

import base64
import json
import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.client.transport import Connection

from .conftest import Daemon, launched, wait_for

KINDS = ("registry", "environment", "exec", "secret", "file", "rbd", "token", "health")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("canaries")
    options = ("--log-level", "debug", "--audit-log", str(directory / "audit.log"))
    with launched(directory / "root", *options) as made:
        made.ctl("pull", "-q", "builtin:busybox")
        yield made


@pytest.fixture
def canaries() -> dict[str, str]:
    """Words that nothing else has."""
    return {kind: f"canary{kind}{secrets.token_hex(12)}" for kind in KINDS}


def ask(daemon: Daemon, method: str, target: str, body: Any = None, headers: dict[str, str] | None = None) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    return Connection(str(daemon.socket), 60).request(method, f"/v1{target}", headers or {}, data).read()


def forms(word: str) -> list[bytes]:
    """As it is, and as it may be disguised."""
    plain = word.encode()
    return [plain, plain.hex().encode(), *(base64.b64encode(b"x" * n + plain)[4:-4] for n in range(3))]


def seen(daemon: Daemon, canaries: dict[str, str], *, but: frozenset[str] = frozenset()) -> list[str]:
    """Where canaries are; `but` are kinds that are not looked for in the database, where they belong."""
    places: list[tuple[str, bytes]] = []
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                places.append((f"{name} of {process.name}", (process / name).read_bytes()))
            except OSError:
                continue
    files = [*daemon.root.parent.glob("*.log*"), *daemon.root.rglob("*"), *daemon.run.rglob("*")]
    for file in files:
        if file.is_file() and not file.is_symlink() and file.stat().st_size < 64 << 20 and file.suffix != ".img":
            places.append((str(file), file.read_bytes()))
    found = []
    for where, data in places:
        kept = Path(where).name.startswith(("state.db", "description"))
        for kind, word in canaries.items():
            if not (kept and kind in but) and any(form in data for form in forms(word)):
                found.append(f"{kind}: {where}")
    return found


POD: dict[str, Any] = {
    "id": "guarded",
    "containers": [
        {"name": "guarded", "image": "busybox", "command": ["sleep", "1000"], "secrets": [{"secret": "s"}],
         "files": [{"path": "/f", "filename": "f"}]}
    ],
}  # fmt: skip


def test_canaries_of_a_container(daemon: Daemon, canaries: dict[str, str]) -> None:
    """Its environment and a check's header are in its record, as they are in `inspect`; that is all."""
    spec = {
        "image": "busybox", "name": "bird", "command": ["sleep", "1000"],
        "env": [f"PASSWORD={canaries['environment']}"],
        "health": {"http": {"port": 80, "headers": {"Authorization": canaries["health"]}}, "interval": 1},
    }  # fmt: skip
    made = json.loads(ask(daemon, "POST", "/containers?start=1", spec))
    assert made["state"]["status"] == "running", made
    try:
        process = {"command": ["sleep", "1000"], "env": [f"PASSWORD={canaries['exec']}"], "detach": True}
        exec_ = json.loads(ask(daemon, "POST", "/containers/bird/exec", process))
        ask(daemon, "POST", f"/execs/{exec_['id']}/start")
        assert daemon.out("exec", "bird", "sh", "-c", "echo $PASSWORD") == canaries["environment"]
        assert seen(daemon, canaries, but=frozenset({"environment", "health"})) == []
        events = ask(daemon, "GET", "/events?past=1").decode()
        assert not any(word in events for word in canaries.values())
    finally:
        daemon.ctl("rm", "-f", "bird")


def test_canaries_of_a_pod(daemon: Daemon, canaries: dict[str, str]) -> None:
    """A secret is in the clear in the guest's memory only; so is the key of a Ceph volume."""
    pod = POD | {
        "secrets": [{"name": "s", "content": canaries["secret"]}],
        "files": [{"name": "f", "content": canaries["file"]}],
    }
    made = ask(daemon, "POST", "/pods", pod)
    assert json.loads(made)["pod"]["name"] == "guarded", made
    try:
        ask(daemon, "POST", "/pods/guarded/start")
        assert daemon.out("exec", "guarded", "cat", "/run/secrets/s") == canaries["secret"]
        answers = [ask(daemon, "GET", f"/{kind}/guarded") for kind in ("pods", "containers")]
        assert not any(canaries["secret"].encode() in a for a in answers)
        assert seen(daemon, canaries, but=frozenset({"file"})) == []
    finally:
        daemon.ctl("pod", "rm", "-f", "guarded")


def test_the_key_of_a_ceph_volume(daemon: Daemon, canaries: dict[str, str]) -> None:
    volume = {
        "name": "v", "format": "rbd", "source": "pool/image",
        "option": {"user": "me", "keyring": canaries["rbd"], "monitors": ["127.0.0.1:1"]},
    }  # fmt: skip
    pod = POD | {"id": "ceph", "volumes": [volume]}
    pod["containers"] = [
        {"name": "ceph", "image": "busybox", "command": ["true"], "volumes": [{"volume": "v", "path": "/v"}]}
    ]
    assert b'"pod":' in (made := ask(daemon, "POST", "/pods", pod)), made
    looked: list[list[str]] = []
    over = threading.Event()

    def look() -> None:
        while True:
            looked.append([x for x in seen(daemon, canaries) if "rbd" in x])
            if over.wait(0.05):
                return

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        ask(daemon, "POST", "/pods/ceph/start")  # there is no such cluster: QEMU says so
    finally:
        over.set()
        watcher.join()
        daemon.ctl("pod", "rm", "-f", "ceph")
    assert not any(looked), next(x for x in looked if x)
    assert seen(daemon, canaries) == []


def test_the_password_of_a_registry(daemon: Daemon, canaries: dict[str, str]) -> None:
    """While skopeo waits for a registry that does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        name = f"localhost:{silent.getsockname()[1]}/x"
        given = json.dumps({"username": "me", "password": canaries["registry"]}).encode()
        header = {"X-Registry-Auth": base64.urlsafe_b64encode(given).decode()}
        connection = Connection(str(daemon.socket), 60)
        connection.send("POST", f"/v1/images/pull?name={name}", header, b"")
        with connection:
            asked, _ = silent.accept()
            with asked:
                assert asked.recv(10)
                assert any(b"skopeo" in p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists())
                assert seen(daemon, canaries) == []
    wait_for(lambda: not any((daemon.root / "images/staging").iterdir()), "the pull's end")
    assert seen(daemon, canaries) == []


def test_a_token(daemon: Daemon, canaries: dict[str, str], tmp_path: Path) -> None:
    token = daemon.out("token", "create", "bird")
    for given in (token, canaries["token"]):
        ask(daemon, "GET", f"/version?token={secrets.token_hex(4)}", headers={"Authorization": f"Bearer {given}"})
    assert seen(daemon, {"token": token.split("_", 2)[2], "guess": canaries["token"]}) == []


def test_no_core_of_it_or_of_its_helpers_is_written(daemon: Daemon) -> None:
    """A limit of 1 byte: of 0 the kernel takes no notice where cores go to a program (core(5), do_coredump)."""
    limits = Path(f"/proc/{daemon.process.pid}/limits").read_text()
    line = next(x for x in limits.splitlines() if x.startswith("Max core file size"))
    assert line.split()[4:6] == ["1", "1"]
