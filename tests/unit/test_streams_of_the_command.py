# SPDX-License-Identifier: Apache-2.0
"""hyperctl with standard streams that are full, closed or narrow, and with arguments that are no text.

There is one sentence, never a traceback.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from hypercontainer.model.network import Network
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.model.status import Container, Pod, PodDetails, Process, Volume
from tests.unit.test_cp import ID, Guest, guest

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
    with open(tmp_path / "pipe", "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "hypercontainer.hyperctl", "run", "--help"], stdout=out, stderr=subprocess.PIPE
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
    [["run", "-e", f"A={ODD}", "x", "true"], ["run", "x", ODD], ["exec", "x", ODD], ["volume", "create", ODD],
     ["stop", ODD], ["cp", f"x:/{ODD}", "-"]],
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


def answered(guest: Guest) -> str:
    """A daemon that makes and lists what the tests below ask for; its address."""
    process = Process(args=["x"], env=[], cwd="/", user="", stop_signal=15)
    container = Container(
        id=ID.decode(), name="c", pod="p", created_at="2026-01-01T00:00:00Z", image="x", image_id="sha256:1",
        hostname="c", process=process, spec=ContainerSpec(image="x"),
    )  # fmt: skip
    pod = Pod(id=ID.decode(), name="p", created_at="2026-01-01T00:00:00Z", hostname="p", vcpus=1, memory=1)
    details = PodDetails(pod=pod, containers=[])
    volume = Volume(name="v" * 40, created_at="2026-01-01T00:00:00Z", driver="block", path="/v")
    network = Network(
        id="a" * 12, name="n", created_at="2026-01-01T00:00:00Z", bridge="b", subnet="10.1.0.0/24", gateway="10.1.0.1"
    )
    line = b'{"log":"%s\\n","stream":"stdout","time":"2026-01-31T12:00:00.000000Z"}\n' % (b"x" * 1000)
    for request, answer in {
        "POST /v1/containers": container, "POST /v1/pods": details, "POST /v1/volumes": volume,
        "POST /v1/networks": network,
    }.items():  # fmt: skip
        guest.answers[request.encode()] = msgspec.json.encode(answer)
    guest.answers[b"GET /v1/volumes"] = b"[]"
    guest.answers[f"GET /v1/containers/{ID.decode()}/logs".encode()] = line * 100
    guest.answers[b"GET /v1/containers/x/logs"] = line * 100
    guest.answers[b"GET /v1/containers"] = b"[]"
    return os.environ["HYPER_HOST"]


@pytest.mark.parametrize(
    "verb", [["ps"], ["volume", "ls"], ["logs", "x"], ["export", "x"], ["cp", "x:/srv", "-"]], ids=lambda v: v[0]
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_refuses_the_output_is_named(guest: Guest, verb: list[str], unbuffered: str) -> None:
    host = answered(guest)
    guest.answer = b"x" * 100_000
    done = ctl(*verb, shell=">/dev/full", host=host, PYTHONUNBUFFERED=unbuffered)
    one_sentence(done, 1, b"cannot write to stdout: No space left on device", b"send it elsewhere")


MAKING = {
    "quick run": ["run", "-d", "x"],
    "run": ["run", "-d", "--label", "a=b", "x"],
    "create": ["create", "x"],
    "pod create": ["pod", "create"],
    "volume create": ["volume", "create"],
    "network create": ["network", "create", "n"],
}


@pytest.mark.parametrize("verb", MAKING.values(), ids=MAKING)
@pytest.mark.parametrize("stdout", [">/dev/full", ">&-"])
def test_the_name_of_what_was_made_is_not_lost(guest: Guest, verb: list[str], stdout: str) -> None:
    done = ctl(*verb, shell=stdout, host=answered(guest))
    told, why = done.stderr.decode().splitlines()
    name = {"volume": "v" * 40, "network": "a" * 12}.get(verb[0], ID.decode())
    assert told.startswith("hyperctl: the ") and told.endswith(f"was made all the same: {name}")
    assert why.startswith("hyperctl: cannot write to stdout: ") and done.returncode == (125 if verb[0] == "run" else 1)
    assert done.stderr.count(name.encode()) == 1


def test_an_id_whose_file_cannot_be_written(guest: Guest, tmp_path: Path) -> None:
    done = ctl("run", "-d", "--cidfile", str(tmp_path / "none/id"), "x", host=answered(guest))
    assert done.returncode == 125 and ID in done.stderr and b"none/id: No such file" in done.stderr


def test_a_full_disk_names_the_file(guest: Guest) -> None:
    guest.answer = b"x" * 100_000
    guest.answers[b"GET /v1/containers/x/export"] = guest.answer
    one_sentence(ctl("export", "x", "-o", "/dev/full", host=os.environ["HYPER_HOST"]), 1, b"/dev/full: No space left")


def test_stdin_that_cannot_be_read(guest: Guest) -> None:
    done = ctl("cp", "-", "x:/srv", shell="0>/dev/null", host=os.environ["HYPER_HOST"])
    one_sentence(done, 1, b"cannot read from stdin: Bad file descriptor")
