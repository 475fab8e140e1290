# SPDX-License-Identifier: Apache-2.0
"""The init that `--init` puts before a program, as a process of this host; it adopts though it is not process 1."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

NAME = "/sbin/docker-init"
TIMEOUT = 30  # seconds


def begin(binary: Path, *program: str, **how: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        [NAME, "--", *program], executable=binary, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how
    )


@pytest.mark.parametrize(
    ("program", "code"),
    [
        (("sh", "-c", "exit 0"), 0),
        (("sh", "-c", "exit 255"), 255),
        (("sh", "-c", "kill -TERM $$"), 128 + signal.SIGTERM),
        (("sh", "-c", "kill -SEGV $$"), 128 + signal.SIGSEGV),
        (("/nonexistent/program",), 127),
        (("/etc/passwd",), 126),
    ],
)
def test_it_ends_as_its_program_does(binary: Path, program: tuple[str, ...], code: int) -> None:
    with begin(binary, *program) as process:
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == code
    assert code not in (126, 127) or errors.startswith(f'exec: "{program[0]}": ')


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGWINCH, signal.SIGRTMIN + 3])
def test_signals_are_handed_on(binary: Path, sig: int) -> None:
    script = f"import signal, sys; signal.signal({int(sig)}, lambda s, f: sys.exit(7)); print('ready', flush=True);"
    script += " signal.pause()"
    with begin(binary, "python3", "-c", script) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(sig)
        assert process.wait(TIMEOUT) == 7


def test_what_is_left_to_it_is_reaped_and_does_not_end_it(binary: Path) -> None:
    """Its program never waits; the orphan's parent is the init, and nothing of it stays."""
    script = "sh -c 'sh -c \"exit 3\" & echo $!' > /proc/self/fd/1; echo ready; exec sleep 1000"
    with begin(binary, "sh", "-c", script) as process:
        assert process.stdout is not None
        orphan, ready = int(process.stdout.readline()), process.stdout.readline()
        assert ready == "ready\n"
        while Path(f"/proc/{orphan}").exists():  # until it is reaped; the test's own limit ends this
            os.sched_yield()
        assert process.poll() is None
        process.terminate()
        assert process.wait(TIMEOUT) == 128 + signal.SIGTERM


def test_its_program_has_no_signal_blocked_or_ignored(binary: Path) -> None:
    with begin(binary, "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status") as process:
        out, _ = process.communicate(timeout=TIMEOUT)
    blocked, ignored = (int(line.split()[1], 16) for line in out.splitlines())
    stopping = (1 << signal.SIGTTIN - 1) | (1 << signal.SIGTTOU - 1)
    assert blocked == 0 and not ignored & stopping


def test_a_terminals_keys_reach_its_program(binary: Path) -> None:
    master, slave = pty.openpty()
    script = "trap 'exit 9' INT; echo ready; while :; do sleep 0.05; done"
    with begin(
        binary, "sh", "-c", script, stdin=slave, start_new_session=True, preexec_fn=lambda: _control(0)
    ) as process:
        os.close(slave)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        os.write(master, b"\x03")
        assert process.wait(TIMEOUT) == 9
    os.close(master)


def _control(fd: int) -> None:
    import fcntl
    import termios

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever runs the tests in the background ignores it
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_before_itself_it_stands_alone(binary: Path, sig: int) -> None:
    """It runs no program, and ends when it is told to."""
    with begin(binary, NAME) as process:
        # Once it has its name it sleeps in one place only: where it waits for signals.
        while "(docker-init) S" not in Path(f"/proc/{process.pid}/stat").read_text():
            os.sched_yield()
        process.send_signal(sig)
        assert process.wait(TIMEOUT) == 0
