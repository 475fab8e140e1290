# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.drivers NAME...`: a container of each of these drivers, beside each other on one hyperd.

Each step is printed with what it said, as docs/hypervisors.md has it; the first that says something else ends it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.peers import BIN, Hyper, daemon, namespace

from hypercontainer.hypervisor.xen import tools
from tests import libvirtd, transcript
from tests.world import World

_TRANSCRIPTS = Path(__file__).parent / "transcripts"
# Seconds that a machine has. The clock of the lab with KVM counts instructions: a guest is up in three of its seconds,
# whatever the lab's host does, and one that hangs costs five of a processor for each.
_KVM = os.environ.get("HYPER_TEST_ACCELERATOR") == "kvm"
_BOOT = 30.0 if _KVM else 60.0 * float(os.environ.get("HYPER_TEST_SLOWNESS", "1"))
_LEFT = "hyperctl rm -f web; hyperctl volume rm kept"  # what steps that were not ended may leave


def steps(driver: str) -> list[transcript.Step]:
    """What every driver does, then what this one has or lacks."""
    own = "libvirt-xen" if driver == "libvirt" and tools.is_dom0() else driver
    files = [_TRANSCRIPTS / "every.txt", _TRANSCRIPTS / f"{own}.txt"]
    return [step for path in files if path.exists() for step in transcript.read(path)]


def play(driver: str, hyper: Hyper, directory: Path, prefix: list[str]) -> str:
    """What was otherwise, "" for nothing; nothing of the container is there then."""
    environment = {**hyper.env, "DRIVER": driver, "PATH": f"{BIN}:{hyper.env['PATH']}"}
    print(f"\n# DRIVER={driver}", flush=True)
    difference = ""
    try:
        for played in transcript.each(steps(driver), environment, directory, prefix):
            print(f"$ {played.step.command}\n{played.printed}", end="", flush=True)
            if not played.right:
                difference = played.difference()
                break
    except subprocess.TimeoutExpired as e:
        difference = str(e)
    if difference:
        transcript.run(_LEFT, environment, directory, prefix)
    return difference


def in_turn(names: list[str], once: Callable[[str], str], tries: int) -> str:
    """Each driver, so many times at most until nothing is otherwise; what was otherwise in the last try of one."""
    for name in names:
        for number in range(tries, 0, -1):
            if not (difference := once(name)):
                break
            print(difference, file=sys.stderr, flush=True)
            if number == 1:
                return difference
            print(f"# {name} once more", flush=True)
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.drivers", description=__doc__)
    parser.add_argument("--accelerator", choices=("auto", "kvm", "tcg"), default="auto")
    parser.add_argument("--tries", type=int, default=1, metavar="N", help="of each driver, where guests hang at times")
    parser.add_argument("names", nargs="+", metavar="NAME", help="of a driver")
    args = parser.parse_args()
    options = ["--accelerator", args.accelerator, "--no-factory"]
    with tempfile.TemporaryDirectory(prefix="hyd") as name, namespace() as space, contextlib.ExitStack() as stack:
        directory = Path(name)
        settings = directory / "settings.toml"
        settings.write_text(f"boot_timeout = {_BOOT}\n")
        options += ["--config", str(settings)]
        if "libvirt" in args.names:
            options += ["--libvirt-uri", stack.enter_context(libvirtd.running(directory / "libvirt", space)).uri]
        with daemon(directory / "hyper", space, *options) as hyper:
            inside = ["nsenter", f"--net=/run/netns/{space}"]
            if in_turn(args.names, lambda driver: play(driver, hyper, directory, inside), args.tries):
                return 1
            World(hyper.root, hyper.socket.parent, daemon=hyper.process.pid).check()
        left = World(hyper.root, hyper.socket.parent).nothing()
        if left:
            print(f"left behind: {left}", file=sys.stderr)
    return int(bool(left))


if __name__ == "__main__":
    sys.exit(main())
