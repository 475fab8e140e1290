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
from pathlib import Path

from bench.peers import BIN, Hyper, daemon, namespace

from hypercontainer.hypervisor.xen import tools
from tests import libvirtd, transcript
from tests.lab.ending import ended
from tests.world import World

_TRANSCRIPTS = Path(__file__).parent / "transcripts"
# Seconds that a machine has. The clock of the lab with KVM counts instructions: a guest is up in three of its seconds,
# whatever the lab's host does.
_KVM = os.environ.get("HYPER_TEST_ACCELERATOR") == "kvm"
_BOOT = 30.0 if _KVM else 60.0 * float(os.environ.get("HYPER_TEST_SLOWNESS", "1"))


_AGAIN = 2  # times at most that a driver is tried again where the emulator hung a guest (docs/development.md)


def steps(driver: str, *, short: bool) -> list[transcript.Step]:
    """What every driver does, then what this one has or lacks."""
    own = "libvirt-xen" if driver == "libvirt" and tools.is_dom0() else driver
    names = ["short"] if short else ["every", own]
    files = [_TRANSCRIPTS / f"{name}.txt" for name in names]
    return [step for path in files if path.exists() for step in transcript.read(path)]


def play(driver: str, hyper: Hyper, directory: Path, prefix: list[str], *, short: bool) -> str:
    """What was otherwise, "" for nothing."""
    environment = {**hyper.env, "DRIVER": driver, "PATH": f"{BIN}:{hyper.env['PATH']}"}
    print(f"\n# DRIVER={driver}", flush=True)
    for played in transcript.each(steps(driver, short=short), environment, directory, prefix):
        print(f"$ {played.step.command}\n{played.printed}", end="", flush=True)
        if not played.right:
            return played.difference()
    return ""


def play_all(names: list[str], args: argparse.Namespace) -> str:
    """On one hyperd, what was otherwise, "" for nothing; `names` are those that were not played when it returns."""
    options = ["--accelerator", args.accelerator, "--no-factory"]
    with tempfile.TemporaryDirectory(prefix="hyd") as name, namespace() as space, contextlib.ExitStack() as stack:
        directory = Path(name)
        settings = directory / "settings.toml"
        settings.write_text(f"boot_timeout = {_BOOT}\n")
        options += ["--config", str(settings)]
        if "libvirt" in names:
            options += ["--libvirt-uri", stack.enter_context(libvirtd.running(directory / "libvirt", space)).uri]
        with daemon(directory / "hyper", space, *options) as hyper:
            while names:
                prefix = ["nsenter", f"--net=/run/netns/{space}"]
                if difference := play(names[0], hyper, directory, prefix, short=args.short):
                    return difference
                del names[0]
            World(hyper.root, hyper.socket.parent, daemon=hyper.process.pid).check()
        left = World(hyper.root, hyper.socket.parent).nothing()
    return f"left behind: {left}" if left else ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.drivers", description=__doc__)
    parser.add_argument("--accelerator", choices=("auto", "kvm", "tcg"), default="auto")
    parser.add_argument("--short", action="store_true", help="less of each: one machine")
    parser.add_argument("names", nargs="+", metavar="NAME", help="of a driver")
    args = parser.parse_args()
    names = list(args.names)
    for left in reversed(range(_AGAIN + 1)):
        before = ended()
        try:
            difference = play_all(names, args)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            difference = str(error)
        if not difference:
            return 0
        print(difference, file=sys.stderr)
        if ended() == before:
            return 1
        print(f"the emulator hung a guest{': once more' if left else ''}", file=sys.stderr)
    return os.EX_TEMPFAIL


if __name__ == "__main__":
    sys.exit(main())
