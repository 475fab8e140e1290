# SPDX-License-Identifier: Apache-2.0
"""A bundle's hooks: where each is run, what it hears, and what becomes of the container when it fails."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .bundles import Runtime, make_bundle, make_root
from .conftest import Daemon, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a stand-in has namespaces of its own, which take root")


@pytest.fixture
def runtime(hyper: Daemon, tmp_path: Path) -> Runtime:
    return Runtime(hyper, tmp_path / "state")


def _with(bundle: Path, **hooks: Any) -> None:
    config = json.loads((bundle / "config.json").read_text())
    config["hooks"], config["hostname"] = hooks, "hooked"
    (bundle / "config.json").write_text(json.dumps(config))


def _shell(script: str, **more: Any) -> list[dict[str, Any]]:
    return [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin", "A=b"], **more}]


def test_where_they_are_run(runtime: Runtime, tmp_path: Path) -> None:
    rootfs, told = make_root(tmp_path / "rootfs"), tmp_path / "told"
    bundle = make_bundle(tmp_path / "b", rootfs, "sh", "-c", "cat /hook; hostname >/program")
    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    each = {kind: _shell(f"echo {kind} $(hostname) $(cat) >>{told}") for kind in kinds}
    inside = _shell("echo $A $$ $(ls /bin/busybox) $(cat) >/hook; test ! -e /program")
    _with(bundle, **each, startContainer=inside)
    done = runtime("run", "-b", bundle, "hooked")
    assert (rootfs / "program").read_text() == "hooked\n"
    lines = [line.split(" ", 2) for line in told.read_text().splitlines()]
    assert [line[0] for line in lines] == list(kinds)
    assert [line[0] for line in lines if line[1] == "hooked"] == ["createContainer"]
    states = [json.loads(line[2]) for line in lines]
    assert [s["status"] for s in states] == ["creating"] * 3 + ["running", "stopped"]
    assert {s["bundle"] for s in states} == {str(bundle)} and states[0]["pid"] > 0
    word, number, program, state = done.stdout.split(" ", 3)
    assert (word, program) == ("b", "/bin/busybox") and int(number) > 1
    heard = json.loads(state)
    assert (heard["id"], heard["status"], heard["pid"]) == ("hooked", "created", 1)


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "startContainer"])
def test_one_that_fails_ends_it(runtime: Runtime, hyper: Daemon, tmp_path: Path, kind: str) -> None:
    bundle = make_bundle(tmp_path / "b", make_root(tmp_path / "rootfs"), "touch", "/ran")
    told = tmp_path / "told"
    _with(bundle, **{kind: _shell("echo no >&2; exit 3")}, poststop=_shell(f"cat >{told}"))
    done = runtime("run", "-b", bundle, "x", check=False)
    assert done.returncode == 1 and "the hook /bin/sh failed with status 3: no" in done.stderr
    assert json.loads(told.read_text())["status"] == "stopped"
    assert not (tmp_path / "rootfs/ran").exists()
    assert runtime("list", "-q").stdout == ""
    wait_for(lambda: "oci-x" not in hyper.out("ps", "-a"), "the container's end")


def test_one_that_takes_too_long(runtime: Runtime, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", make_root(tmp_path / "rootfs"), "true")
    for kind in ("createContainer", "startContainer"):
        _with(bundle, **{kind: _shell("sleep 1000", timeout=1)})
        done = runtime("run", "-b", bundle, "x", check=False)
        assert done.returncode == 1 and "the hook /bin/sh has not ended within 1" in done.stderr
    _with(bundle, startContainer=[{"path": "/no/such"}])
    done = runtime("run", "-b", bundle, "x", check=False)
    assert "the hook /no/such failed with status 127: No such file" in done.stderr
    _with(bundle, poststop=[{"path": "here"}])
    assert "the hook poststop has no absolute path: 'here'" in runtime("run", "-b", bundle, "x", check=False).stderr


def test_what_has_happened_goes_on(runtime: Runtime, tmp_path: Path) -> None:
    bundle, told = make_bundle(tmp_path / "b", make_root(tmp_path / "rootfs"), "sleep", "1000"), tmp_path / "told"
    both = [*_shell("exit 4"), *_shell(f"echo after >>{told}")]
    _with(bundle, poststart=both, poststop=both)
    with open(tmp_path / "said", "w") as said:
        runtime("--log", tmp_path / "log", "--log-format", "json", "run", "--detach", "-b", bundle, "x",
                capture_output=False, stdout=subprocess.DEVNULL, stderr=said)  # fmt: skip
    assert runtime.state("x")["status"] == "running"
    line = json.loads((tmp_path / "log").read_text())
    assert line["level"] == "warning" and "the hook /bin/sh failed with status 4" in line["msg"]
    assert "warning: the hook /bin/sh failed with status 4" in runtime("delete", "--force", "x").stderr
    assert told.read_text() == "after\n" * 2
