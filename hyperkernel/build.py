#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Build hyperkernel: Debian's pinned kernel source, tinyconfig, fragment.config.

The result goes to a directory named by the hash of what went into it
($XDG_CACHE_HOME/hyper/kernel/HASH), so a second call has nothing to do:

    vmlinux      uncompressed ELF with a PVH note, entered without firmware
    config       the whole configuration
    kernel.json  version and hashes, which `hyperctl info` shows

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
from pathlib import Path

HERE = Path(__file__).resolve().parent
REVISION = 1  # raise it when the same source and options are built differently
REPRODUCIBLE = {"KBUILD_BUILD_TIMESTAMP": "1970-01-01", "KBUILD_BUILD_USER": "hyper", "KBUILD_BUILD_HOST": "hyper"}


class BuildError(Exception):
    """What failed, and what to do."""


def cache_directory() -> Path:
    base = os.environ.get("HYPER_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "hyper"
    )
    return Path(base) / "kernel"


def wanted_options(fragment: Path) -> list[str]:
    """The fragment's lines that set or unset an option."""
    lines = fragment.read_text().splitlines()
    return [x for x in lines if x.startswith("CONFIG_") or (x.startswith("# CONFIG_") and x.endswith(" is not set"))]


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


def key(pin: dict[str, object], fragment: Path) -> str:
    """Names a build: the source's hash, the options and the way they are built."""
    parts = [str(pin["sha256"]), *wanted_options(fragment), *(p.read_text() for p in patches()), f"revision {REVISION}"]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def verified_source(pin: dict[str, object], source: Path | None) -> Path:
    """The pinned tarball; installed from Debian when it is not there."""
    path = source or Path(str(pin["file"]))
    if not path.exists() and source is None:
        package = f"{pin['package']}={pin['version']}"
        print(f"hyperkernel: installing {package}", flush=True)
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package],
        ):
            if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
                raise BuildError(
                    f"`{' '.join(command)}` failed: the pinned source may have been superseded in Debian; "
                    "put a newer version and its hash into hyperkernel/pin.json, or name the tarball with --source"
                )
    if not path.exists():
        raise BuildError(f"{path} does not exist: name the kernel's source with --source")
    print(f"hyperkernel: verifying {path.name}", flush=True)
    with open(path, "rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    if digest != pin["sha256"]:
        raise BuildError(
            f"{path} has SHA-256 {digest}, not the pinned {pin['sha256']}: "
            f"install {pin['package']}={pin['version']}, or change hyperkernel/pin.json"
        )
    return path


class ProgressLine:
    """One line that counts on a terminal; elsewhere a line per tenth."""

    def __init__(self, total: int) -> None:
        self._total = max(total, 1)
        self._done = self._told = 0
        self._begin = time.monotonic()

    def step(self) -> None:
        self._done += 1
        percent = min(99, 100 * self._done // self._total)
        text = f"hyperkernel: compiling {percent}% ({self._done}/{self._total}, {time.monotonic() - self._begin:.0f} s)"
        if sys.stdout.isatty():
            print(f"\r{text}", end="", flush=True)
        elif percent >= self._told + 10:
            self._told = percent
            print(text, flush=True)

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


def configure(tree: Path, fragment: Path, log: Path) -> str:
    """tinyconfig plus the fragment; the whole configuration as text."""
    make(tree, "tinyconfig", log=log)
    merge = ["scripts/kconfig/merge_config.sh", "-m", "-O", ".", ".config", str(fragment)]
    with open(log, "a") as out:
        subprocess.run(merge, cwd=tree, stdout=out, stderr=out, check=True)
    make(tree, "olddefconfig", log=log)
    config = (tree / ".config").read_text()
    lost = lost_options(wanted_options(fragment), config)
    if lost:
        raise BuildError("these options of fragment.config did not survive: " + ", ".join(lost))
    return config


def has_pvh_note(vmlinux: Path) -> bool:
    """Whether the ELF carries Xen's PHYS32_ENTRY note, by which QEMU enters it."""
    notes = subprocess.run(["readelf", "-n", str(vmlinux)], capture_output=True, text=True, check=True).stdout
    return "Xen" in notes and "0x00000012" in notes


def build(pin: dict[str, object], fragment: Path, source: Path | None, target: Path) -> None:
    tarball = verified_source(pin, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as scratch:
        work = Path(scratch)
        log = work / "build.log"
        print("hyperkernel: unpacking the source", flush=True)
        (work / "tree").mkdir()
        subprocess.run(["tar", "-xf", str(tarball), "-C", str(work / "tree"), "--strip-components=1"], check=True)
        tree = work / "tree"
        for patch in patches():
            print(f"hyperkernel: applying {patch.name}", flush=True)
            with open(patch, "rb") as f:
                subprocess.run(["patch", "-p1", "-s", "--fuzz=0"], cwd=tree, stdin=f, check=True)
        print("hyperkernel: configuring", flush=True)
        config = configure(tree, fragment, log)
        progress = ProgressLine(int(str(pin["steps"])))
        make(tree, "vmlinux", progress=progress, log=log)
        progress.finish()
        release = (tree / "include/config/kernel.release").read_text().strip()
        out = work / "out"
        out.mkdir()
        subprocess.run(["strip", "--strip-all", "-o", str(out / "vmlinux"), str(tree / "vmlinux")], check=True)
        if not has_pvh_note(out / "vmlinux"):
            raise BuildError("the kernel has no PVH note: CONFIG_PVH did not take effect")
        (out / "config").write_text(config)
        about = {
            "version": release,
            "config_hash": hashlib.sha256(config.encode()).hexdigest(),
            "source": str(pin["version"]),
        }
        (out / "kernel.json").write_text(json.dumps(about, indent=1) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        os.rename(out, target)


def main() -> int:
    parser = argparse.ArgumentParser(description="Build hyperkernel, the guest kernel.")
    parser.add_argument("--source", type=Path, help="the pinned kernel source's tarball, when it is not installed")
    parser.add_argument("--print-key", action="store_true", help="print the build's name and end")
    args = parser.parse_args()
    pin = json.loads((HERE / "pin.json").read_text())
    fragment = HERE / "fragment.config"
    target = cache_directory() / key(pin, fragment)
    if args.print_key:
        print(target.name)
        return 0
    if (target / "kernel.json").exists():
        os.utime(target / "kernel.json")  # the newest build is the one that is booted
        print(f"hyperkernel: up to date at {target}")
        return 0
    try:
        build(pin, fragment, args.source, target)
    except BuildError as error:
        print(f"hyperkernel: {error}", file=sys.stderr)
        return 1
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"hyperkernel: the build failed: {error}", file=sys.stderr)
        return 1
    print(f"hyperkernel: built {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
