# SPDX-License-Identifier: Apache-2.0
"""hyperctl with standard streams that are full, closed or narrow, and with arguments that are no text: one sentence, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_cp import Guest, guest

__all__ = ["guest"]

ODD = "a\udcffb"  # an argument that is not UTF-8, as Python has it


def ctl(
    *args: str, shell: str = "", host: str = "/nonexistent/hyper.sock", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run hyperctl; `shell` is a redirection."""
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", sys.executable, "-m", "hypercontainer.hyperctl", *args]
    return subprocess.run(
        command, capture_output=True, timeout=60, check=False, env={**os.environ, "HYPER_HOST": host, **environment}
    )  # fmt: skip


def one_sentence(done: subprocess.CompletedProcess[bytes], status: int, *words: bytes) -> None:
    assert done.returncode == status, done.stderr.decode()
    assert b"Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr.decode()
    assert done.stderr.startswith(b"hyperctl: ") and all(word in done.stderr for word in words), done.stderr.decode()


@pytest.mark.parametrize("verb", [["run", "--help"], ["--version"], ["completion", "bash"]])
def test_stdout_that_takes_nothing(verb: list[str]) -> None:
    status = 125 if verb[0] == "run" else 1
    one_sentence(ctl(*verb, shell=">/dev/full"), status, b"stdout", b"No space left on device")
    one_sentence(ctl(*verb, shell=">&-"), status, b"stdout", b"Bad file descriptor")


def test_a_reader_that_has_gone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    ours = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    process = subprocess.Popen(
        [sys.executable, "-m", "hypercontainer.hyperctl", "run", "--help"],
        stdout=open(tmp_path / "pipe", "wb"),
        stderr=subprocess.PIPE,
    )
    os.close(ours)
    assert process.communicate(timeout=60)[1] == b"" and process.returncode == 141


def test_streams_that_are_closed() -> None:
    one_sentence(ctl("ps", shell="<&-"), 1, b"cannot connect")
    assert ctl("ps", shell="2>&-").returncode == 1
    # A socket that we open must not become the stream that something is printed to.
    assert ctl("ps", shell="<&- >&- 2>&-").returncode == 1
    one_sentence(ctl("volume", "prune", shell="<&-"), 1, b"no terminal to ask on")


@pytest.mark.parametrize(
    "verb",
    [["run", "-e", f"A={ODD}", "x", "true"], ["run", "x", ODD], ["exec", "x", ODD], ["volume", "create", ODD], ["stop", ODD], ["cp", f"x:/{ODD}", "-"]],
    ids=lambda v: v[0],
)  # fmt: skip
def test_arguments_that_are_no_text(guest: Guest, verb: list[str]) -> None:
    host = os.environ["HYPER_HOST"]
    one_sentence(ctl(*verb, host=host), 125 if verb[0] == "run" else 1, b"not UTF-8", b"a\xffb")


def test_paths_of_this_host_may_be_any_bytes(guest: Guest, tmp_path: Path) -> None:
    odd = tmp_path / ODD
    odd.mkdir()
    (odd / "f").write_text("x")
    assert ctl("cp", str(odd), "x:/srv", host=os.environ["HYPER_HOST"]).returncode == 0
    one_sentence(ctl("cp", str(odd / "none"), "x:/srv", host=os.environ["HYPER_HOST"]), 1, b"a\xffb/none")
    one_sentence(ctl("ps", host=str(odd)), 1, b"cannot connect", b"a\xffb")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_narrow_terminals(guest: Guest, encoding: str) -> None:
    """What cannot be printed there is escaped, in output and in errors."""
    guest.answer = b""
    for name in ("größe-✓", ODD):
        done = ctl("-H", f"/none/{name}", "ps", PYTHONIOENCODING=encoding)
        one_sentence(done, 1, b"cannot connect")


def test_files_that_are_no_text(tmp_path: Path, guest: Guest) -> None:
    (tmp_path / "env").write_bytes(b"A=\xff\xfe\n")
    one_sentence(ctl("run", "--env-file", str(tmp_path / "env"), "x", host=os.environ["HYPER_HOST"]), 125, b"UTF-8")


def test_files_that_cannot_be_written(guest: Guest, tmp_path: Path) -> None:
    one_sentence(
        ctl("export", "x", "-o", str(tmp_path / "none/file"), host=os.environ["HYPER_HOST"]), 1, b"No such file"
    )
    one_sentence(ctl("export", "x", shell=">/dev/full", host=os.environ["HYPER_HOST"]), 1, b"No space left")


@pytest.mark.parametrize("mode", ["99999", "8", "", "-1", "77777", "0o17"])
def test_modes_of_a_tmpfs(mode: str) -> None:
    for option in (["--tmpfs", f"/x:mode={mode}"], ["--mount", f"type=tmpfs,target=/x,tmpfs-mode={mode}"]):
        one_sentence(ctl("run", *option, "busybox"), 125, b"invalid mode", b"octal")


@pytest.mark.parametrize("size", ["99999999999999999999", "9" * 400, "1e99"])
def test_sizes_beyond_all_disks(size: str) -> None:
    one_sentence(ctl("volume", "create", "--size", size), 1, b"invalid size")
