#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Build hyperkernel: Debian's kernel source (source.py says which), tinyconfig, fragment.config.

The result goes to a directory named by the hash of what went into it
($XDG_CACHE_HOME/hyper/kernel/HASH), so a second call has nothing to do:

    vmlinux      amd64: uncompressed ELF with a PVH note, entered without firmware
    Image        arm64: what a hypervisor enters without firmware there (architecture.py)
    config       the whole configuration
    kernel.json  version, architecture and hashes, which `hyperctl info` shows

Only the standard library: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from architecture import ARCHITECTURES, Architecture, host, options_of
from source import BuildError, Pin, Source, find, given, warning

HERE = Path(__file__).resolve().parent
REVISION = 1  # raise it when the same source and options are built differently
REPRODUCIBLE = {"KBUILD_BUILD_TIMESTAMP": "1970-01-01", "KBUILD_BUILD_USER": "hyper", "KBUILD_BUILD_HOST": "hyper"}


def cache_directory() -> Path:
    base = os.environ.get("HYPER_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "hyper"
    )
    return Path(base) / "kernel"


def lost_options(wanted: list[str], config: str) -> list[str]:
    """Those that did not survive; an option that no longer exists counts as unset."""
    have = set(config.splitlines())
    lost = []
    for line in wanted:
        if line in have:
            continue
        if line.startswith("# "):
            name = line.split()[1]
            if not any(x.startswith(f"{name}=") for x in have):
                continue
        lost.append(line)
    return lost


def patches() -> list[Path]:
    """Our changes to the source, in the order in which they are applied."""
    return sorted((HERE / "patches").glob("*.patch"))


def read_pin() -> Pin:
    fields = json.loads((HERE / "pin.json").read_text())
    return Pin(**{**fields, "file": Path(fields["file"])})


def key(sha256: str, options: list[str]) -> str:
    """Names a build: the source's hash, the options and the way they are built."""
    parts = [sha256, *options, *(p.read_text() for p in patches()), f"revision {REVISION}"]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def expected(pin: Pin) -> float:
    """Seconds that the build takes on this machine, if it has nothing else to do."""
    return pin.core_seconds / len(os.sched_getaffinity(0))


def about(seconds: float) -> str:
    """A duration as people say it."""
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} minutes"


class ProgressLine:
    """One line that counts on a terminal; elsewhere a line per tenth. `expected` is in seconds, for all."""

    def __init__(self, total: int, expected: float) -> None:
        self._total = max(total, 1)
        self._expected = expected
        self._done = self._printed = 0
        self._begin = time.monotonic()

    def step(self) -> None:
        self._done += 1
        percent = min(99, 100 * self._done // self._total)
        passed = time.monotonic() - self._begin
        text = f"hyperkernel: compiling {percent}%, {passed:.0f} s, {about(self._left(passed))} left"
        if sys.stdout.isatty():
            print(f"\r{text}\x1b[K", end="", flush=True)
        elif percent >= self._printed + 10:
            self._printed = percent
            print(text, flush=True)

    def _left(self, passed: float) -> float:
        """Seconds: at first as expected, then as what is done has taken."""
        done = min(self._done / self._total, 1.0)
        measured = passed / done * (1 - done)
        return measured * done + (1 - done) * max(self._expected - passed, 0)

    def finish(self) -> None:
        if sys.stdout.isatty():
            print()
        print(f"hyperkernel: compiled in {time.monotonic() - self._begin:.0f} s", flush=True)


def make(tree: Path, *targets: str, progress: ProgressLine | None = None, log: Path) -> None:
    command = ["make", "-C", str(tree), f"-j{os.cpu_count() or 1}", *targets]
    with (
        open(log, "a") as out,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **REPRODUCIBLE}
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            out.write(line)
            if progress and line.startswith("  "):
                progress.step()
    if process.returncode:
        tail = "".join(log.read_text().splitlines(keepends=True)[-15:])
        raise BuildError(f"`{' '.join(command)}` failed:\n{tail}")


def configure(tree: Path, order: Order, log: Path) -> str:
    """tinyconfig plus the fragment; the whole configuration as text."""
    variables = order.architecture.variables
    make(tree, *variables, "tinyconfig", log=log)
    fragment = log.with_name("fragment.config")
    fragment.write_text("".join(f"{line}\n" for line in order.options))
    merge = ["scripts/kconfig/merge_config.sh", "-m", "-O", ".", ".config", str(fragment)]
    with open(log, "a") as out:
        subprocess.run(merge, cwd=tree, stdout=out, stderr=out, check=True)
    make(tree, *variables, "olddefconfig", log=log)
    config = (tree / ".config").read_text()
    lost = lost_options(order.options, config)
    if lost:
        raise BuildError("these options of fragment.config did not survive: " + ", ".join(lost))
    return config


def has_pvh_note(vmlinux: Path) -> bool:
    """Whether the ELF carries Xen's PHYS32_ENTRY note, by which QEMU enters it."""
    notes = subprocess.run(["readelf", "-n", str(vmlinux)], capture_output=True, text=True, check=True).stdout
    return "Xen" in notes and "0x00000012" in notes


def apply(tree: Path, source: Source) -> None:
    """Our patches to the source.

    :raise BuildError: when one does not fit; the tree is of no use then.
    """
    for patch in patches():
        print(f"hyperkernel: applying {patch.name}", flush=True)
        with open(patch, "rb") as f:
            done = subprocess.run(
                ["patch", "-p1", "-s", "--fuzz=0"], cwd=tree, stdin=f, capture_output=True, text=True, check=False
            )
        if done.returncode:
            raise BuildError(f"{patch.name} does not fit linux {source.version}: {done.stdout.strip()}")


@dataclass(frozen=True)
class Order:
    """What is to be built."""

    architecture: Architecture
    options: list[str]

    def target(self, sha256: str) -> Path:
        """Where a build of the source with this hash goes."""
        return cache_directory() / key(sha256, self.options)


def check_compiler(architecture: Architecture) -> None:
    """:raise BuildError: there is none for it here."""
    compiler = f"{architecture.tools}gcc"
    if not shutil.which(compiler):
        package = architecture.package if architecture.tools else "gcc"
        raise BuildError(f"{compiler} is not installed: install the package {package}")


def build(pin: Pin, order: Order, source: Source, target: Path) -> None:
    architecture = order.architecture
    check_compiler(architecture)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as scratch:
        work = Path(scratch)
        log = work / "build.log"
        print("hyperkernel: unpacking the source", flush=True)
        (work / "tree").mkdir()
        subprocess.run(["tar", "-xf", str(source.path), "-C", str(work / "tree"), "--strip-components=1"], check=True)
        tree = work / "tree"
        apply(tree, source)
        print("hyperkernel: configuring", flush=True)
        config = configure(tree, order, log)
        progress = ProgressLine(pin.steps, expected(pin))
        make(tree, *architecture.variables, architecture.target, progress=progress, log=log)
        progress.finish()
        out = work / "out"
        out.mkdir()
        take(tree, architecture, out)
        (out / "config").write_text(config)
        about = {
            "version": (tree / "include/config/kernel.release").read_text().strip(),
            "architecture": architecture.name,
            "config_hash": hashlib.sha256(config.encode()).hexdigest(),
            "source": source.version,
            "tested": source.tested,
        }
        (out / "kernel.json").write_text(json.dumps(about, indent=1) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        os.rename(out, target)


def take(tree: Path, architecture: Architecture, out: Path) -> None:
    """What is booted, out of the tree where it was built; a flat image has no symbols.

    :raise BuildError: it cannot be entered.
    """
    image = tree / architecture.image
    if architecture.target != "vmlinux":
        shutil.copy2(image, out)
        return
    subprocess.run([f"{architecture.tools}strip", "--strip-all", "-o", str(out / image.name), str(image)], check=True)
    if not has_pvh_note(out / image.name):
        raise BuildError("the kernel has no PVH note: CONFIG_PVH did not take effect")


def find_or_build(pin: Pin, order: Order, tarball: Path | None) -> None:
    """:raise BuildError: it cannot be built."""
    target = order.target(pin.sha256)
    if not (target / "kernel.json").exists():
        source = given(pin, tarball) if tarball else find(pin)
        if text := warning(pin, source):
            print(f"hyperkernel: {text}", file=sys.stderr, flush=True)
        target = order.target(source.sha256)
    if (target / "kernel.json").exists():
        os.utime(target / "kernel.json")  # the newest build is the one that is booted
        print(f"hyperkernel: up to date at {target}")
        return
    cores = len(os.sched_getaffinity(0))
    what = f"linux {source.version} for {order.architecture.name}"
    print(f"hyperkernel: building {what} once: {about(expected(pin))} on {cores} cores", flush=True)
    build(pin, order, source, target)
    print(f"hyperkernel: built {target}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Build hyperkernel, the guest kernel.")
    parser.add_argument(
        "--arch", choices=ARCHITECTURES, default=host(), help="of the guests that boot it [this host's]"
    )
    parser.add_argument("--source", type=Path, help="the pinned kernel source's tarball, when it is not installed")
    parser.add_argument("--print-key", action="store_true", help="print the name of the pinned source's build and end")
    args = parser.parse_args()
    pin, architecture = read_pin(), ARCHITECTURES[args.arch]
    order = Order(architecture, options_of(HERE / "fragment.config", architecture.machine))
    if args.print_key:
        print(order.target(pin.sha256).name)
        return 0
    try:
        find_or_build(pin, order, args.source)
    except BuildError as error:
        print(f"hyperkernel: {error}", file=sys.stderr)
        return 1
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"hyperkernel: the build failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
