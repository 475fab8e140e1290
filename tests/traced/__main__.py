# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.traced [WHAT]...`, or `make calls`: what is filtered works under strace, beside its list of calls.

`qemu` is a pod's QEMU without slirp, `slirp` one with it, both without the filter of their jail, from their guest's
first answer on, as the filter is in force from then on; `worker` is the process that converts images, from when it has
its filter. Prints `+ NAME` for a call that the list does not have, `- NAME` for one that it allows and that was not
made; the exit status is 1 where there is one of the first kind.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hypercontainer.hypervisor.qemu.confinement import CALLS, USER_NETWORK_CALLS
from hypercontainer.images import worker
from hypercontainer.jail import seccomp
from tests.e2e.conftest import BIN, Daemon, launched, wait_for
from tests.e2e.test_wedged import machine_of

from . import calls_of, difference, filtered_lines

_SETTINGS = 'jail = "off"\naccelerator = "tcg"\n'
_FILES = "dd if=/dev/zero of=/f bs=64k count=64 && sync && cat /f > /dev/null && rm /f && fstrim / 2>/dev/null; true"
_NETWORK = "wget -T 2 -O /dev/null http://10.0.2.2:9/; nslookup x.invalid; ping -c 1 -W 1 10.0.2.2; true"


def work(daemon: Daemon) -> None:
    """What the guest, its disks and the monitor are made to do."""
    for command in (_FILES, "seq 20000", "ls -lR /etc"):
        daemon.ctl("exec", "x", "sh", "-c", command)
    daemon.ctl("exec", "x", "cat", input=bytes(1 << 20))
    daemon.ctl("cp", Path(__file__), "x:/copied")
    for words in (("pause", "x"), ("unpause", "x"), ("stats", "--no-stream", "x"), ("update", "--cpus", "1", "x")):
        daemon.ctl(*words, check=False)


def talk(daemon: Daemon) -> None:
    """The same, and what slirp does: addresses, names, ports that come and go, connections both ways."""
    work(daemon)
    daemon.ctl("exec", "x", "sh", "-c", _NETWORK, check=False)
    daemon.ctl("ports", "add", "-p", "18099:99", "x", check=False)
    subprocess.run(["sh", "-c", "exec 3<>/dev/tcp/127.0.0.1/18099"], check=False, capture_output=True)
    daemon.ctl("ports", "delete", "-p", "18099:99", "x", check=False)


def of_machine(place: Path, network: tuple[str, ...], doing: Callable[[Daemon], None]) -> Counter[str]:
    """Of a pod's QEMU, from when its guest has answered."""
    trace = place / "trace"
    options = ("--no-factory", "--config", str(place / "hyperd.toml"), *network)
    with launched(place / "root", *options) as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        daemon.ctl("run", "-d", "--name", "x", "-v", "data:/data", "busybox", "sleep", "100000")
        command = ["strace", "-f", "-qq", "-s", "64", "-o", trace, "-p", str(machine_of(daemon, "x"))]
        with subprocess.Popen(command) as tracer:
            wait_for(lambda: trace.exists() and trace.stat().st_size > 0, "the tracer")
            doing(daemon)
            tracer.send_signal(signal.SIGINT)
        daemon.ctl("rm", "-f", "x")
        daemon.ctl("volume", "rm", "data")
    return calls_of(trace.read_text(errors="replace"))


def of_worker(place: Path) -> Counter[str]:
    """Of each process of a pull and a commit that puts a filter on itself."""
    trace = place / "trace"
    with launched(
        place / "root", "--no-factory", "--config", str(place / "hyperd.toml"),
        program=("strace", "-D", "-f", "-qq", "-s", "64", "-o", trace, BIN / "hyperd"),
    ) as daemon:  # fmt: skip
        daemon.ctl("pull", "-q", "builtin:busybox")
        daemon.ctl("run", "--name", "x", "busybox", "sh", "-c", "seq 100000 > /f; ln /f /g; mkfifo /p; ln -s /f /s")
        daemon.ctl("commit", "x", "made")
        daemon.ctl("run", "--rm", "made", "true")
        daemon.ctl("rm", "-f", "x")
        daemon.ctl("rmi", "made")
    made = calls_of("\n".join(filtered_lines(trace.read_text(errors="replace"))))
    assert made, "no process has put a filter on itself"
    return made


def looked_at(what: str, place: Path) -> bool:
    """Whether the list has all that was made."""
    (place / "hyperd.toml").write_text(_SETTINGS)
    if what == "worker":
        made, rules = of_worker(place), seccomp.read(worker.CALLS)
    elif what == "slirp":
        network = ("--network", "user", "--user-network", "slirp")
        made, rules = of_machine(place, network, talk), (*seccomp.read(CALLS), *seccomp.read(USER_NETWORK_CALLS))
    else:
        made, rules = of_machine(place, ("--network", "none"), work), seccomp.read(CALLS)
    found = difference(made, rules)
    print(
        f"{what}:", *(f"{number:8} {name}" for name, number in made.most_common()), found.text(), sep="\n", flush=True
    )
    return not found.forbidden


def main() -> int:
    held = []
    for what in sys.argv[1:] or ("qemu", "slirp", "worker"):
        with tempfile.TemporaryDirectory(prefix="hyper-calls-") as place:
            held.append(looked_at(what, Path(place)))
    return not all(held)


if __name__ == "__main__":
    sys.exit(main())
