# SPDX-License-Identifier: Apache-2.0
"""The podfiles of HyperContainer 1.1, rebuilt from the list of its fields, run as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.registry import free_port

from .conftest import Daemon
from .test_pods import pods

__all__ = ["pods"]
PODFILES = Path(__file__).parents[1] / "podfiles"
# What the containers print, sorted; each line is behind its container's name.
EXPECTED: dict[str, list[str]] = {
    "basic.json": ["ok"],
    "dns.json": ["nameserver 192.0.2.1", "nameserver 192.0.2.2", "options timeout:1", "search example.org"],
    "exitcode.json": [],
    "hostname.json": ["web.example"],
    "insert-files.json": ["0", "644 1:2", "of this host", "one", "two"],
    "interface.json": ["1400", "52:54:00:01:02:03"],
    "map-file.json": ["of this host"],
    "no-newline.json": ["no newline"],
    "ports.json": ["published"],
    "process.json": ["/tmp", "100", "99", "hello"],
    "readonly.json": ["root-ro", "volume-ro"],
    "restart.yaml": ["run", "runx", "runxx"],
    "service.json": ["from-a"],
    "tty.json": ["a-terminal"],
    "user.json": ["uid=65534(nobody) gid=1(daemon) groups=1(daemon),10(uucp),20(dialout)"],
    "volumes.json": ["of this host", "shared"],
}


@pytest.mark.parametrize("name", sorted(p.name for p in PODFILES.iterdir()))
def test_podfile(pods: Daemon, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("of this host\n")
    text = (PODFILES / name).read_text().replace("TMP", str(tmp_path))
    for word in ("PORT1", "PORT2"):
        text = text.replace(word, str(free_port()))
    podfile = tmp_path / name
    podfile.write_text(text)
    done = pods.ctl("run", "-p", podfile, "-a", "--rm", check=False)
    lines = sorted(line.partition(" | ")[2].rstrip("\r") for line in done.stdout.splitlines())
    expected = EXPECTED[name]
    if name == "user.json":  # names of groups are the image's
        lines = [line.split(" groups")[0] for line in lines]
        expected = [line.split(" groups")[0] for line in expected]
    assert (lines, done.returncode) == (expected, 17 if name == "exitcode.json" else 0), done.stderr
    if name == "process.json":
        assert "hello" in (tmp_path / "process.log").read_text()
