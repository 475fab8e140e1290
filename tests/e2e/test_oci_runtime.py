# SPDX-License-Identifier: Apache-2.0
"""hyper-runtime as conmon and containerd's shim call it: bundles, states, what stands for a container on this host."""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import subprocess
import termios
from pathlib import Path

import pytest

from .bundles import Runtime, make_bundle, make_root
from .conftest import BIN, DEADLINE, Daemon, launched, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a stand-in has namespaces of its own, which take root")
SAYS = "trap 'echo bye; exit 7' TERM; echo up >/said; read line; echo heard $line; while :; do sleep 0.1; done"


@pytest.fixture
def runtime(hyper: Daemon, tmp_path: Path) -> Runtime:
    return Runtime(hyper, tmp_path / "state")


def _ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_the_life_of_a_bundle(runtime: Runtime, tmp_path: Path) -> None:
    rootfs = make_root(tmp_path / "rootfs")
    bundle = make_bundle(tmp_path / "b", rootfs, "sh", "-c", SAYS)
    output, pid_file = tmp_path / "output", tmp_path / "pid"
    (tmp_path / "input").write_text("hello\n")
    with open(output, "wb") as out, open(tmp_path / "input", "rb") as said:
        runtime("create", "--bundle", bundle, "--pid-file", pid_file, "one", stdin=said, stdout=out, stderr=out,
                capture_output=False)  # fmt: skip
    state, pid = runtime.state("one"), int(pid_file.read_text())
    assert (state["status"], state["pid"], state["bundle"], state["id"]) == ("created", pid, str(bundle), "one")
    assert os.path.samefile(f"/proc/{pid}/root", rootfs)
    assert "container with given ID already exists" in runtime("create", "-b", bundle, "one", check=False).stderr
    runtime("start", "one")
    assert runtime.state("one")["status"] == "running"
    wait_for(lambda: output.read_text() == "heard hello\n", "the output")
    assert (rootfs / "said").read_text() == "up\n"  # its root is the bundle's
    assert "cannot start a container that is running" in runtime("start", "one", check=False).stderr

    done = runtime("exec", "--env", "A=b", "one", "sh", "-c", "echo $A; exit 3", check=False)
    assert (done.stdout, done.returncode) == ("b\n", 3)
    assert 'exec: "nosuch": executable file not found in $PATH' in runtime("exec", "one", "nosuch", check=False).stderr
    kept = {"bounding": ["CAP_KILL", "CAP_CHOWN"], "ambient": ["CAP_KILL"]}
    process = {"args": ["grep", "CapEff", "/proc/self/status"], "cwd": "/", "user": {"uid": 9}, "capabilities": kept}
    (tmp_path / "process").write_text(json.dumps(process))
    assert runtime("exec", "--process", tmp_path / "process", "one").stdout == f"CapEff:\t{1 << 5:016x}\n"
    (tmp_path / "process").write_text(json.dumps({"args": ["sleep", "1000"], "cwd": "/tmp", "user": {"uid": 9}}))
    runtime("exec", "--detach", "--process", tmp_path / "process", "--pid-file", tmp_path / "p2", "one",
            capture_output=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    assert "sleep 1000" in (table := runtime("ps", "one").stdout) and table.startswith("UID"), table
    assert json.loads(runtime("ps", "--format", "json", "one").stdout) == [pid]
    further = int((tmp_path / "p2").read_text())
    os.kill(further, signal.SIGKILL)
    wait_for(lambda: _ended(further) and "sleep 1000" not in runtime("ps", "one").stdout, "the further process's end")

    runtime("pause", "one")
    assert runtime.state("one")["status"] == "paused"
    runtime("resume", "one")
    runtime("update", "--memory", str(64 << 20), "one")
    for option in ("--memory", "--cpu-quota", "--pids-limit"):
        done = runtime("update", option, "0", "one", check=False)
        assert f"{option} 0 is no limit that can be set: -1 is none" in done.stderr
    used = json.loads(runtime("events", "--stats", "one").stdout)
    assert used["data"]["memory"]["usage"]["limit"] == 64 << 20 and used["data"]["pids"]["current"] > 0
    assert "that is not stopped: running" in runtime("delete", "one", check=False).stderr
    assert [c["id"] for c in json.loads(runtime("list", "--format", "json").stdout)] == ["one"]
    os.kill(pid, signal.SIGTERM)  # it goes to the program
    wait_for(lambda: _ended(pid), "the end of what stands for it")
    assert output.read_text() == "heard hello\nbye\n"
    state = runtime.state("one")
    assert (state["status"], state["pid"]) == ("stopped", 0)
    runtime("delete", "one")
    assert "container 'one' does not exist" in runtime("state", "one", check=False).stderr
    runtime("delete", "--force", "one")


def test_what_stands_for_a_container_lives_and_dies_with_it(runtime: Runtime, hyper: Daemon, tmp_path: Path) -> None:
    rootfs = make_root(tmp_path / "rootfs")
    bundle = make_bundle(tmp_path / "b", rootfs, "sh", "-c", "cat; exit 5")
    done = runtime("run", "--bundle", bundle, "two", input="through\n", check=False)
    assert (done.stdout, done.returncode) == ("through\n", 5)
    assert runtime("list", "-q").stdout == ""
    missing = make_bundle(tmp_path / "c", rootfs, "nosuch")
    done = runtime("--log", tmp_path / "log", "--log-format", "json", "run", "--bundle", missing, "three", check=False)
    assert 'exec: "nosuch": executable file not found in $PATH' in done.stderr and done.returncode == 1
    assert json.loads((tmp_path / "log").read_text())["level"] == "error"
    missing = make_bundle(tmp_path / "e", rootfs, "/no/such")
    done = runtime("create", "--bundle", missing, "three", check=False)
    assert 'exec: "/no/such": stat /no/such: no such file or directory' in done.stderr
    sleeping = make_bundle(tmp_path / "d", rootfs, "sleep", "1000")
    runtime("run", "--detach", "--bundle", sleeping, "four", capture_output=False, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)  # fmt: skip
    runtime("kill", "four", "STOP")
    os.kill(runtime.state("four")["pid"], signal.SIGKILL)
    wait_for(lambda: runtime.state("four")["status"] == "stopped", "the end of what stands for it")
    wait_for(lambda: "Exited (137)" in hyper.out("ps", "-a"), "the end of the container")
    runtime("delete", "four")
    assert runtime("list", "-q").stdout == ""


def test_what_is_to_be_started_outlives_hyperd(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", make_root(tmp_path / "rootfs"), "echo", "through")
    with launched(tmp_path / "root", "--no-factory") as hyper:
        runtime = Runtime(hyper, tmp_path / "state")
        with open(tmp_path / "output", "wb") as out:
            runtime("create", "-b", bundle, "one", stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                    capture_output=False)  # fmt: skip
        pid = runtime.state("one")["pid"]
        hyper.stop(signal.SIGKILL)
        with launched(tmp_path / "root", "--no-factory", run=hyper.run):
            runtime("start", "one")
            wait_for(lambda: _ended(pid), "the end of what stands for it")
            assert (tmp_path / "output").read_text() == "through\n"
            runtime("delete", "one")


@pytest.mark.slow  # a hyperd waits for what stands for a container
def test_what_stands_for_a_container_ends_while_hyperd_is_away(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", make_root(tmp_path / "rootfs"), "sleep", "1000")
    options = ("--no-factory", "--live-restore")
    with launched(tmp_path / "root", *options) as hyper:
        runtime = Runtime(hyper, tmp_path / "state")
        for name in ("stays", "goes"):
            runtime("run", "--detach", "-b", bundle, name, capture_output=False, stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        hyper.stop(signal.SIGKILL)
        os.kill(runtime.state("goes")["pid"], signal.SIGKILL)
        with launched(tmp_path / "root", *options, run=hyper.run) as again:
            wait_for(lambda: "oci-goes" not in again.out("ps"), "the end of the container")
            assert "oci-stays" in again.out("ps") and runtime.state("stays")["status"] == "running"
            runtime("delete", "goes")
            runtime("delete", "--force", "stays")


def test_a_terminal(runtime: Runtime, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", make_root(tmp_path / "rootfs"), "sh", "-c", "stty size; read x; echo got $x",
                         terminal=True, consoleSize={"height": 11, "width": 22})  # fmt: skip
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "console"))
        listener.listen(1)
        listener.settimeout(60)
        running = runtime.popen("create", "--bundle", bundle, "--console-socket", tmp_path / "console", "tty")
        peer, _ = listener.accept()
        with peer:
            _, ancillary, _, _ = peer.recvmsg(1000, socket.CMSG_SPACE(4))
        (master,) = array.array("i", ancillary[0][2])
        assert running.wait(60) == 0
    runtime("start", "tty")
    os.write(master, b"\x10\x11word\n")  # Docker's keys to detach by, which are its program's here
    heard = b""
    try:
        while more := os.read(master, 1000):
            heard += more
    except OSError:  # the terminal's other end is closed: EIO
        pass
    os.close(master)
    assert b"11 22" in heard and b"got \x10word" in heard, heard
    wait_for(lambda: runtime.state("tty")["status"] == "stopped", "the end of what stands for it")
    runtime("delete", "tty")


def test_the_terminal_of_who_runs_it(runtime: Runtime, tmp_path: Path) -> None:
    words = "stty size; read x; echo got $x; exit 5"
    bundle = make_bundle(tmp_path / "b", make_root(tmp_path / "rootfs"), "sh", "-c", words, terminal=True)
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (11, 22))
    running = runtime.popen("run", "--bundle", bundle, "own", stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    heard = b""
    try:
        while more := os.read(master, 1000):
            heard += more
            if b"11 22" in heard and b"word" not in heard:
                os.write(master, b"word\r")
    except OSError:  # the terminal's other end is closed: EIO
        pass
    os.close(master)
    assert running.wait(60) == 5 and b"got word" in heard, heard


def test_what_has_no_machine(runtime: Runtime, tmp_path: Path) -> None:
    """Refused before anything is taken, each with a sentence."""
    rootfs = make_root(tmp_path / "rootfs")
    bundle = make_bundle(tmp_path / "b", rootfs, "true")
    config = json.loads((bundle / "config.json").read_text())
    config["linux"]["devices"] = [{"path": "/dev/kvm", "type": "c"}]
    (bundle / "config.json").write_text(json.dumps(config))
    done = runtime("create", "-b", bundle, "x", check=False)
    assert done.stderr == "hyper-runtime: the device /dev/kvm of this host cannot be given to a virtual machine\n"
    config["linux"]["devices"] = []
    config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "echo no >&2; exit 3"]}]}
    (bundle / "config.json").write_text(json.dumps(config))
    done = runtime("create", "-b", bundle, "x", check=False)
    assert "the hook /bin/sh failed with status 3: no" in done.stderr
    assert runtime("list", "-q").stdout == ""
    assert "config.json: No such file" in runtime("create", "-b", rootfs, "x", check=False).stderr
    config["root"], config["hooks"] = {"path": "config.json"}, {}
    (bundle / "config.json").write_text(json.dumps(config))
    done = runtime("create", "-b", bundle, "x", check=False)
    assert "config.json is no directory: mount the image or the device" in done.stderr
    rootless = ["unshare", "--user", "--map-root-user", BIN / "hyper-runtime", "--root", bundle, "create", "x"]
    done = subprocess.run(rootless, capture_output=True, text=True, timeout=DEADLINE, check=False, cwd=bundle)
    assert done.returncode == 1 and "hyper-runtime is for this host's root" in done.stderr
    for verb in ("start", "kill", "pause", "state", "ps", "events", "delete"):
        assert "container 'y' does not exist" in runtime(verb, "y", check=False).stderr
    assert "--preserve-fds" in runtime("create", "-b", bundle, "--preserve-fds", "1", "x", check=False).stderr
    assert json.loads(runtime("features").stdout)["ociVersionMax"] == "1.0.2"
