# SPDX-License-Identifier: Apache-2.0
"""hyperctl as people use it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tarfile
import uuid
from pathlib import Path

import pytest

from .conftest import BIN, DEADLINE, Daemon, wait_for


def test_uname_exit_code_and_stdin(hyper: Daemon) -> None:
    assert hyper.out("run", "--rm", "busybox", "uname", "-r").endswith("-hyper")
    assert hyper.ctl("run", "--rm", "busybox", "sh", "-c", "exit 7", check=False).returncode == 7
    assert hyper.ctl("run", "-i", "--rm", "busybox", "cat", input=b"hi\n").stdout == "hi\n"


@pytest.mark.parametrize("pieces", [4, pytest.param(25, marks=pytest.mark.slow)])  # 25: a hundred megabytes
def test_megabytes_of_anything(hyper: Daemon, pieces: int) -> None:
    """Binary-clean, whole, and through a pipe."""
    script = (
        f"i=0; while [ $i -lt {pieces} ]; do "
        "head -c 4194304 /dev/urandom > /tmp/x; sha256sum < /tmp/x >&2; cat /tmp/x; i=$((i+1)); done"
    )
    process = subprocess.Popen(
        [BIN / "hyperctl", "run", "--rm", "busybox", "sh", "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=hyper.environment,
    )  # fmt: skip
    out, err = process.communicate(timeout=DEADLINE)
    import hashlib

    sums = [hashlib.sha256(out[at : at + 4194304]).hexdigest() for at in range(0, len(out), 4194304)]
    assert process.returncode == 0 and len(out) == pieces * 4194304
    assert sums == re.findall(r"^(\w{64})", err.decode(), re.M)


def test_a_file_of_stdin_to_its_end(hyper: Daemon, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(os.urandom(5_000_000))
    with open(data, "rb") as f:
        done = subprocess.run(
            [BIN / "hyperctl", "run", "-i", "--rm", "busybox", "md5sum"],
            stdin=f,
            capture_output=True,
            env=hyper.environment,
            check=True,
        )
    import hashlib

    assert done.stdout.split()[0].decode() == hashlib.md5(data.read_bytes()).hexdigest()


def test_a_closed_stdout_ends_quietly(hyper: Daemon) -> None:
    done = subprocess.run(
        f"{BIN}/hyperctl run --rm busybox yes | head -1",
        shell=True,
        capture_output=True,
        env=hyper.environment,
        timeout=DEADLINE,
        check=True,
    )
    assert done.stdout == b"y\n" and b"Traceback" not in done.stderr


def test_signals_are_forwarded(hyper: Daemon) -> None:
    command = [
        BIN / "hyperctl",
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=hyper.environment)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == b"caught\n"
    assert process.wait(DEADLINE) == 9
    process.stdout.close()


def test_a_killed_machine_is_told(hyper: Daemon) -> None:
    command = [BIN / "hyperctl", "run", "--rm", "busybox", "sh", "-c", "echo ready; sleep 1000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=hyper.environment)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    os.kill(int(hyper.out("list", "vm", "--format", "{{.VmPid}}")), signal.SIGKILL)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 255
    assert err == b"hyperctl: the virtual machine ended unexpectedly\n"


def test_detached_life(hyper: Daemon) -> None:
    id_ = hyper.out(
        "run",
        "-d",
        "--name",
        "life",
        "-l",
        "a=b",
        "busybox",
        "sh",
        "-c",
        "echo out; echo err >&2; trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done",
    )
    assert re.fullmatch(r"[0-9a-f]{64}", id_)
    wait_for(lambda: "ready" in hyper.out("logs", "life"), "ready")
    wait_for(lambda: hyper.ctl("logs", "life").stderr == "err\n", "stderr")  # streams are not ordered among each other
    assert hyper.out("logs", "--tail", "2", "life").endswith("ready")
    assert len(
        hyper.ctl("logs", "--tail", "1", "life").stdout + hyper.ctl("logs", "--tail", "1", "life").stderr
    ) <= len("ready\n")
    assert re.search(r"^\d{4}-\d\d-\d\dT[\d:.]+Z ready$", hyper.out("logs", "-t", "life"), re.M)
    assert hyper.out("logs", "--since", "1h", "--until", "30m", "life") == ""
    (row,) = json.loads(hyper.out("ps", "--format", "json", "-f", "label=a=b"))
    assert row["names"] == "life" and row["state"] == "running" and row["status"].startswith("Up")
    assert hyper.out("ps", "--format", "{{.ID}} {{.Names}}") == f"{id_[:12]} life"
    assert "sleep" in hyper.out("top", "life")
    assert "life" in hyper.out("stats", "--no-stream", "life")
    hyper.ctl("pause", "life")
    assert "(Paused)" in hyper.out("ps")
    hyper.ctl("unpause", "life")
    hyper.ctl("rename", "life", "other")
    assert hyper.out("stop", "other") == "other"
    assert hyper.out("wait", "other") == "3"
    assert "Exited (3)" in hyper.out("ps", "-a")
    hyper.ctl("start", "other")
    hyper.ctl("restart", "-t", "0", "other")
    hyper.ctl("kill", "-s", "KILL", "other")
    assert hyper.out("wait", "other") == "137"
    assert json.loads(hyper.out("inspect", "other"))[0]["state"]["exitCode"] == 137
    assert hyper.out("inspect", "-f", "{{.State.ExitCode}}", "other") == "137"
    hyper.ctl("rm", "other")
    assert hyper.out("ps", "-aq") == ""


def test_exec(hyper: Daemon) -> None:
    hyper.ctl("run", "-d", "--name", "box", "-e", "A=1", "busybox", "sleep", "1000")
    assert hyper.out("exec", "-e", "B=2", "-w", "/tmp", "box", "sh", "-c", "echo $A $B; pwd") == "1 2\n/tmp"
    assert hyper.ctl("exec", "box", "sh", "-c", "exit 5", check=False).returncode == 5
    assert hyper.ctl("exec", "box", "nosuch", check=False).returncode == 127
    assert hyper.ctl("exec", "-i", "box", "cat", input=b"in").stdout == "in"
    assert hyper.out("exec", "-u", "nobody", "box", "id", "-u") == "65534"
    hyper.ctl("exec", "-d", "box", "touch", "/tmp/made")
    wait_for(
        lambda: hyper.ctl("exec", "box", "test", "-e", "/tmp/made", check=False).returncode == 0, "the detached exec"
    )


def test_copies(hyper: Daemon, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/file").write_bytes(os.urandom(200_000))
    (tree / "link").symlink_to("sub/file")
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o755)
    hyper.ctl("create", "--name", "files", "busybox", "sleep", "1000")
    for started in (False, True):
        if started:
            hyper.ctl("start", "files")
        into = "/srv-on" if started else "/srv-off"
        hyper.ctl("cp", tree, f"files:{into}")  # becomes the new directory
        hyper.ctl("cp", f"{tree}/.", "files:/tmp")  # its contents
        hyper.ctl("cp", tree / "run", f"files:{into}/renamed")
        back = tmp_path / f"back{started}"
        hyper.ctl("cp", f"files:{into}", back)
        assert (back / "sub/file").read_bytes() == (tree / "sub/file").read_bytes()
        assert os.readlink(back / "link") == "sub/file" and (back / "renamed").stat().st_mode & 0o777 == 0o755
        out = tmp_path / f"one{started}"
        hyper.ctl("cp", "-L", f"files:{into}/link", out)
        assert out.read_bytes() == (tree / "sub/file").read_bytes()
    raw = subprocess.run(
        [BIN / "hyperctl", "cp", "files:/etc/passwd", "-"], capture_output=True, env=hyper.environment, check=True
    ).stdout
    import io

    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        assert tar.getnames() == ["passwd"]
    hyper.ctl("cp", "-", "files:/root", input=raw)
    assert "root:x:0" in hyper.out("exec", "files", "cat", "/root/passwd")
    assert hyper.ctl("cp", "files:/none", tmp_path, check=False).returncode == 1
    assert hyper.ctl("cp", tree, "files:/none/deeper", check=False).returncode == 1


def test_environment_labels_and_files(hyper: Daemon, tmp_path: Path) -> None:
    env = tmp_path / "env"
    env.write_text("# a comment\nX=from file\nHOME_GROWN=1\n")
    cid = tmp_path / "cid"
    out = hyper.out(
        "run", "--rm", "--env-file", env, "-e", "X=flag", "--cidfile", cid, "busybox", "sh", "-c", "echo $X $HOME_GROWN"
    )
    assert out == "flag 1" and re.fullmatch(r"[0-9a-f]{64}", cid.read_text())


def test_images(hyper: Daemon) -> None:
    hyper.ctl("tag", "busybox", "mine/box:v1")
    rows = json.loads(hyper.out("images", "--format", "json"))
    assert {("busybox", "latest"), ("mine/box", "v1")} <= {(r["repository"], r["tag"]) for r in rows}
    assert "Untagged: mine/box:v1" in hyper.out("rmi", "mine/box:v1")
    hyper.ctl("create", "--name", "user", "busybox")
    refused = hyper.ctl("rmi", "busybox", check=False)
    assert refused.returncode == 1 and "in use by container user" in refused.stderr
    assert "Total reclaimed space" in hyper.out("image-prune", "-f")
    assert hyper.out("inspect", "--type", "image", "-f", "{{.Os}}", "busybox") == "linux"


def test_info_version_doctor_help_completion(hyper: Daemon) -> None:
    info = json.loads(hyper.out("info", "--format", "json"))
    assert info["kernelVersion"].endswith("-hyper") and len(info["kernelConfigHash"]) == 64
    assert info["accelerator"] in ("kvm", "tcg") and info["acceleratorReason"]
    assert json.loads(hyper.out("version", "--format", "json"))["server"]["kernel"] == info["kernelVersion"]
    checks = {c["name"]: c for c in json.loads(hyper.out("doctor", "--format", "json"))}
    assert {"qemu", "accelerator", "kernel", "hyperstart", "guest channel", "network"} <= set(checks)
    assert all(c["status"] == "ok" or c["hint"] for c in checks.values())
    assert "\033[" not in hyper.out("doctor")
    for verb in re.findall(r"^  (\S+)  ", hyper.out("--help").partition("Commands")[2], re.M):
        assert "Usage: hyperctl" in hyper.out(verb, "--help"), verb
    for shell in ("bash", "zsh", "fish"):
        assert "hyperctl" in hyper.out("completion", shell)


def test_doctor_tries_kvm_again(hyper: Daemon) -> None:
    kept = hyper.root / "cache/accelerator.json"
    hyper.out("doctor", "--probe")
    if not kept.exists():
        pytest.skip("there is no /dev/kvm to try")
    first = json.loads(kept.read_text())
    kept.write_text(json.dumps(first | {"reason": "of an earlier day"}))
    checks = {c["name"]: c for c in json.loads(hyper.out("doctor", "--probe", "--format", "json"))}
    again = json.loads(kept.read_text())
    assert again["reason"] != "of an earlier day" and again["key"] == first["key"]
    assert checks["accelerator"]["found"] == f"{again['accelerator']}: {again['reason']}"


def test_events(hyper: Daemon) -> None:
    hyper.ctl("run", "--rm", "--name", "eventful", "busybox", "true")
    lines = hyper.out(
        "events", "--since", "1m", "--until", "-f", "container=eventful", "--format", "{{.Action}}"
    ).split()
    assert lines == ["create", "attach", "start", "die", "destroy"]


class Terminal:
    """A tmux session of 80 by 24, as a person's terminal."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._name = f"hyper-{uuid.uuid4().hex[:8]}"
        self._socket = f"hyper-{os.getpid()}"
        self._run(
            "new-session",
            "-d",
            "-s",
            self._name,
            "-x",
            "80",
            "-y",
            "24",
            "env",
            *[f"{k}={environment[k]}" for k in ("HYPER_HOST", "PATH")],
            "sh",
        )

    def _run(self, *args: str) -> str:
        return subprocess.run(["tmux", "-L", self._socket, *args], capture_output=True, text=True, check=True).stdout

    def type(self, *keys: str) -> None:
        self._run("send-keys", "-t", self._name, *keys)

    def screen(self) -> str:
        return self._run("capture-pane", "-p", "-t", self._name)

    def shows(self, text: str) -> None:
        try:
            wait_for(lambda: text in self.screen(), f"{text!r} on the screen")
        except AssertionError as error:
            raise AssertionError(f"{error}\nit shows:\n{self.screen()}") from None

    def is_raw(self) -> bool:
        """Whether a program reads keys as they are typed."""
        pane = self._run("display-message", "-p", "-t", self._name, "#{pane_tty}").strip()
        modes = subprocess.run(["stty", "-F", pane, "-a"], capture_output=True, text=True, check=True).stdout
        return "-icanon" in modes and "-opost" in modes

    def resize(self, columns: int, rows: int) -> None:
        self._run("resize-window", "-t", self._name, "-x", str(columns), "-y", str(rows))

    def close(self) -> None:
        self._run("kill-session", "-t", self._name)


@pytest.fixture
def terminal(hyper: Daemon) -> object:
    term = Terminal(hyper.environment)
    yield term
    term.close()


def test_a_terminal(hyper: Daemon, terminal: Terminal) -> None:
    terminal.type("hyperctl run -it --name tty busybox sh", "Enter")
    terminal.shows("/ #")
    terminal.type("stty size; tty", "Enter")
    terminal.shows("24 80")
    terminal.shows("/dev/pts/0\n/ #")
    terminal.resize(100, 30)
    # The size may come after what was typed next.
    terminal.type("until stty size | grep 30; do :; done; stty size; echo resized", "Enter")
    terminal.shows("30 100\nresized\n/ #")
    terminal.type("sleep 1000", "Enter")
    terminal.shows("sleep 1000\n")
    terminal.type("C-c")
    terminal.shows("^C\n/ #")
    terminal.type("echo still here", "Enter")
    terminal.shows("\nstill here\n/ #")
    terminal.type("C-p", "C-q")
    terminal.shows("detached; the process goes on")
    assert hyper.out("ps", "--format", "{{.Names}}") == "tty"
    terminal.type("hyperctl attach tty", "Enter")
    wait_for(terminal.is_raw, "the terminal in raw mode")
    terminal.type("echo attached again", "Enter")
    terminal.shows("\nattached again\n/ #")
    terminal.type("C-p", "x", "C-q")  # the keys, and something between them
    terminal.type("C-c")
    terminal.type("C-p", "C-q")
    wait_for(lambda: terminal.screen().count("detached; the process goes on") == 2, "detached again")
    terminal.type("clear; hyperctl exec -it --detach-keys ctrl-x,x tty sh", "Enter")
    terminal.shows("/ #")
    terminal.type("echo inside", "Enter")
    terminal.shows("\ninside\n/ #")
    terminal.type("C-x", "x")
    terminal.shows("detached; the process goes on")
    terminal.type("hyperctl attach --detach-keys a,b tty", "Enter")
    wait_for(terminal.is_raw, "the terminal in raw mode")
    terminal.type("echo az", "Enter")
    terminal.shows("\naz\n/ #")
    terminal.type("exit 6", "Enter")
    wait_for(lambda: not terminal.is_raw(), "the end of the session")
    terminal.type("echo status=$?", "Enter")
    terminal.shows("status=6")


def test_tty_needs_a_terminal(hyper: Daemon) -> None:
    done = hyper.ctl("run", "-it", "busybox", "sh", check=False)
    assert done.returncode == 125 and "not a terminal" in done.stderr


def test_a_token_goes_before_the_user_of_the_socket(hyper: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    token = hyper.out("token", "create", "looks", "--scope", "read")
    hyper.ctl("create", "--name", "kept", "busybox")
    with monkeypatch.context() as its_holder:
        its_holder.setenv("HYPER_TOKEN", token)
        for verb in (("rm", "kept"), ("run", "--rm", "busybox", "true"), ("exec", "kept", "true")):
            found = hyper.ctl(*verb, check=False)
            assert found.returncode and "this takes the scope `operate`" in found.stderr, verb
        assert "kept" in hyper.out("ps", "-a")
        its_holder.setenv("HYPER_TOKEN", "none")
        found = hyper.ctl("ps", check=False)
        assert found.returncode == 1 and "the token is not known" in found.stderr
    hyper.ctl("token", "revoke", "looks")
