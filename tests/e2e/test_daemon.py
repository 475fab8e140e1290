# SPDX-License-Identifier: Apache-2.0
"""hyperd as a program: signals, crashes, another user, the installed wheel."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from hypercontainer.jail.hyperjail import HyperJail
from hypercontainer.kernel.locate import locate
from tests.vm.conftest import machines

from .conftest import BIN, DEADLINE, launched, wait_for

UID = 54321


def test_sigterm_stops_containers_cleanly(tmp_path: Path) -> None:
    with launched(tmp_path / "root") as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        daemon.ctl(
            "run",
            "-d",
            "--name",
            "box",
            "busybox",
            "sh",
            "-c",
            "[ -e /root/file ] || echo kept > /root/file; trap 'exit 4' TERM; echo ready; while :; do sleep 0.1; done",
        )
        wait_for(lambda: "ready" in daemon.out("logs", "box"), "ready")
        daemon.stop(signal.SIGTERM)
        assert machines(daemon.run) == [] and not daemon.socket.exists()
    with launched(tmp_path / "root") as daemon:
        assert daemon.out("inspect", "-f", "{{.State.ExitCode}}", "box") == "4"
        daemon.ctl("start", "box")
        assert daemon.out("exec", "box", "cat", "/root/file") == "kept"
        daemon.ctl("rm", "-f", "box")


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGHUP])
def test_containers_outlive_the_daemon(tmp_path: Path, sig: signal.Signals) -> None:
    """Killed in the middle of output, or asked to leave: the next daemon goes on, and no line is lost or doubled."""
    with tempfile.TemporaryDirectory(prefix="hye") as run:
        with launched(tmp_path / "root", run=Path(run)) as daemon:
            daemon.ctl("pull", "-q", "builtin:busybox")
            daemon.ctl(
                "run",
                "-d",
                "--name",
                "counter",
                "--log-opt",
                "max-size=1g",
                "busybox",
                "sh",
                "-c",
                "i=0; until [ -e /go ]; do echo line $i; i=$((i+1)); done; exit 8",
            )
            wait_for(lambda: "line 100\n" in daemon.out("logs", "counter"), "output")
            daemon.stop(sig)
            assert len(machines(Path(run))) == 1
        with launched(tmp_path / "root", run=Path(run)) as daemon:
            daemon.ctl("exec", "counter", "touch", "/go", check=False)  # it may be killed with the container
            assert daemon.out("wait", "counter") == "8"
            lines = daemon.out("logs", "counter").splitlines()
            assert len(lines) > 100 and lines == [f"line {n}" for n in range(len(lines))]
            daemon.ctl("rm", "counter")
            wait_for(lambda: machines(Path(run)) == [], "the end of the VM")


def test_structured_logs(tmp_path: Path) -> None:
    with launched(tmp_path / "root", "--log-format", "json"):
        pass
    lines = [json.loads(x) for x in (tmp_path / "root-hyperd.log").read_text().splitlines()]
    assert any("listens on" in x["message"] and x["level"] == "info" and x["time"] for x in lines)


_FIRST = """
from hypercontainer.sdk import Sandbox

with Sandbox.create("builtin:busybox") as sandbox:  # starts hyperd by itself
    print(sandbox.run("uname -s").stdout, end="")
"""


def test_another_user_and_a_daemon_that_starts_itself() -> None:
    """Rootless: state in the user's own directories, user-mode network, published ports.

    The right to read every file is kept, as a test's checkout may lie where others may not look.
    """
    with tempfile.TemporaryDirectory(prefix="hyu") as home:
        kernel = Path(home) / ".cache/hyper/kernel/build"
        (Path(home) / "run").mkdir()
        shutil.copytree(locate().path.parent, kernel)
        for path in [Path(home), *Path(home).rglob("*")]:
            os.chown(path, UID, UID)
        become = [
            "setpriv",
            "--reuid",
            str(UID),
            "--regid",
            str(UID),
            "--clear-groups",
            "--inh-caps=+dac_read_search",
            "--ambient-caps=+dac_read_search",
        ]
        env = {"HOME": home, "XDG_RUNTIME_DIR": f"{home}/run", "PATH": f"{BIN}:/usr/bin:/bin"}

        def ctl(*args: str) -> str:
            done = subprocess.run(
                [*become, "hyperctl", *args],
                env=env,
                capture_output=True,
                text=True,
                timeout=DEADLINE,
                check=False,
                cwd="/",
            )
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        try:
            first = subprocess.run(
                [*become, sys.executable, "-c", _FIRST], env=env, capture_output=True, text=True, timeout=DEADLINE,
                check=False, cwd="/",
            )  # fmt: skip
            assert (first.returncode, first.stdout) == (0, "Linux\n"), first.stderr
            ctl("pull", "-q", "builtin:busybox")
            assert json.loads(ctl("info", "--format", "json"))["rootless"] is True
            assert ctl("run", "--rm", "busybox", "id", "-u") == "0"
            ctl(
                "run",
                "-d",
                "--name",
                "web",
                "-p",
                "127.0.0.1::80",
                "busybox",
                "sh",
                "-c",
                "echo rootless > /tmp/index.html; httpd -f -h /tmp",
            )
            port = ctl("ps", "--format", "{{.Ports}}").split(":")[1].split("-")[0]

            def answers() -> bool:
                done = subprocess.run(
                    ["curl", "-s", f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=False
                )
                return done.stdout == "rootless\n"

            wait_for(answers, "httpd")
            _is_jailed([*become, "hyperctl", "doctor", "--jail", "web", "--format", "json"], env)
            ctl("rm", "-f", "web")
            _share_files(ctl, Path(home))
            assert (Path(home) / ".local/share/hyper/state.db").exists()
        finally:
            _end_processes_of(UID)


def _is_jailed(doctor: list[str], environment: dict[str, str]) -> None:
    """Where the host lets users make namespaces every promise to root's daemon holds, but that of control groups."""
    if HyperJail(Path(environment["HOME"]) / "probe").hindrance():
        pytest.skip("this host has no jail")
    done = subprocess.run(
        doctor, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False, cwd="/"
    )
    found = {c["name"]: c["status"] for c in json.loads(done.stdout)}
    assert len(found) >= 10
    assert {name for name, status in found.items() if status != "ok"} <= {"jail: control group"}, done.stdout


def _share_files(ctl: Callable[..., str], home: Path) -> None:
    """A directory of the user's own: theirs are root's in the container, and the reverse; others' stay closed."""
    shared = home / "shared"
    shared.mkdir()
    (shared / "mine").write_text("from the user")
    os.chown(shared, UID, UID)
    os.chown(shared / "mine", UID, UID)
    script = "stat -c %u /s/mine; cat /s/mine; echo back > /s/made; touch /r/no 2>/dev/null || echo read-only"
    assert (
        ctl("run", "--rm", "-v", f"{shared}:/s", "-v", f"{shared}:/r:ro", "busybox", "sh", "-c", script)
        == "0\nfrom the userread-only"
    )
    made = (shared / "made").stat()
    assert (made.st_uid, (shared / "made").read_text()) == (UID, "back\n")
    assert (
        ctl(
            "run",
            "--rm",
            "-v",
            "kept:/v",
            "busybox",
            "sh",
            "-c",
            "echo x > /v/x; cat /v/x; chown 5 /v/x; stat -c %u /v/x",
        )
        == "x\n5"
    )


def _end_processes_of(uid: int) -> None:
    def mine() -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdecimal() and entry.stat().st_uid == uid:
                    found.append(int(entry.name))
            except FileNotFoundError:
                continue
        return found

    for pid in mine():
        os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + 20
    while mine() and time.monotonic() < end:
        time.sleep(0.05)
    assert mine() == []


def test_the_wheel_is_whole(repository: Path, tmp_path: Path) -> None:
    """`pip install .` alone: both commands, hyperstart for both machines, the kernel's build files."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        repository,
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "hypercontainer/guest/bin/hyperstart-x86_64",
        "hypercontainer/guest/bin/hyperstart-aarch64",
        "hypercontainer/kernel/hyperkernel/architecture.py",
        "hypercontainer/kernel/hyperkernel/build.py",
        "hypercontainer/kernel/hyperkernel/fragment.config",
        "hypercontainer/kernel/hyperkernel/pin.json",
        "hypercontainer/py.typed",
        "hypercontainer/volumes/share.sh",
    ):
        assert name in names, name
    target = tmp_path / "installed"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, wheel],
        check=True,
        capture_output=True,
    )
    env = {**os.environ, "PYTHONPATH": str(target)}
    for program in ("hyperctl", "hyperd"):
        done = subprocess.run(
            [target / "bin" / program, "--version"], env=env, capture_output=True, text=True, check=True, cwd=tmp_path
        )
        assert done.stdout.startswith(program)
    key = subprocess.run(
        [target / "bin/hyperctl", "kernel", "build", "--print-key"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert len(key.stdout.strip()) == 24


_CRI_FAILS = """
import contextlib, sys
from hypercontainer.errors import Unavailable
from hypercontainer.hyperd import daemon, main

@contextlib.asynccontextmanager
async def fails(config, engine):
    raise Unavailable("it cannot be served")
    yield

daemon.cri = fails
main.main()
"""


@pytest.mark.parametrize("late", [False, True], ids=["before the engine is there", "after that"])
def test_an_address_that_cannot_be_served_is_a_sentence_and_an_end(tmp_path: Path, late: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="hye") as short:
        run = Path(short)
        options = ["--root", tmp_path / "root", "--run", run, "--network", "user", "--cri"]
        options += [] if late else ["--cri-socket", run / "nosuch/cri.sock"]
        program = [sys.executable, "-c", _CRI_FAILS] if late else [BIN / "hyperd"]
        done = subprocess.run([*program, *options], capture_output=True, text=True, timeout=DEADLINE, check=False)
        assert done.returncode == 1, done.stderr
        said = "it cannot be served" if late else f"cannot listen on {run}/nosuch/cri.sock: No such file or directory"
        assert done.stderr.splitlines()[-1] == f"hyperd: {said}" and "Traceback" not in done.stderr
        assert not [p for p in run.rglob("*") if not p.is_dir()]
        assert not (tmp_path / "root/state.db-wal").exists()  # the database was closed
