# SPDX-License-Identifier: Apache-2.0
"""Run fuzz targets, each for a time: `python -m fuzz [NAME ...] [--seconds N]`.

What is found new goes to `$HYPER_CACHE/fuzz/NAME`, an input that breaks a
target to `$HYPER_CACHE/fuzz/found`; `--again FILE` runs one input.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

from hypercontainer.sys.caches import cache_directory

HERE = Path(__file__).resolve().parent
TREE = HERE.parent
CACHE = cache_directory("fuzz")
C_TARGETS = {"frames": "container.c", "tar": "", "users": "user.c"}  # with what each includes of hyperstart
PYTHON_TARGETS = (
    "frames", "streams", "layers", "archives", "manifests", "dns", "podfiles", "disks", "copies", "acls", "references",
    "spdy", "profiles", "hellos", "requests",
)  # fmt: skip
NAMES = (*PYTHON_TARGETS, *(f"hyperstart-{name}" for name in C_TARGETS))
CFLAGS = ["-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-fsanitize=fuzzer,address,undefined",
          "-fno-sanitize-recover=all", '-DHYPERSTART_VERSION="fuzz"']  # fmt: skip
LIMITS = ["-timeout=10", "-rss_limit_mb=1024", "-max_len=8192", "-verbosity=1", "-print_final_stats=1"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all if none are named")
    parser.add_argument("--seconds", type=int, default=60, help="for each target [default: 60]")
    parser.add_argument("--again", type=Path, metavar="FILE", help="one input only")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    failed = [name for name in options.names or NAMES if not fuzz(name, options.seconds, options.again)]
    if failed:
        print(f"broken: {', '.join(failed)}; the inputs are below {CACHE / 'fuzz/found'}")
    return bool(failed)


def fuzz(name: str, seconds: int, again: Path | None) -> bool:
    """Whether the target held; one line says what was tried."""
    found = CACHE / "found"
    grown = CACHE / name
    for directory in (found, grown):
        directory.mkdir(parents=True, exist_ok=True)
    what = [str(again)] if again else [f"-max_total_time={seconds}", str(grown), str(HERE / "corpus" / name)]
    done = subprocess.run(
        [*command(name), f"-artifact_prefix={found}/{name}-", *LIMITS, *what],
        cwd=TREE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=0"},
    )  # fmt: skip
    counted = dict(re.findall(r"^stat::(\w+): +(\d+)", done.stdout, re.MULTILINE))
    coverage = re.findall(r" cov: (\d+)", done.stdout)
    held = "held" if done.returncode == 0 else "BROKEN"
    tried = counted.get("number_of_executed_units", "?")
    print(f"{name:20} {held:7} {tried:>9} inputs {coverage[-1] if coverage else '?':>6} places reached", flush=True)
    if done.returncode:
        print(done.stdout[-6000:], flush=True)
    return done.returncode == 0


def command(name: str) -> list[str]:
    """How the target is run; a C one is compiled first."""
    if name in PYTHON_TARGETS:
        return [sys.executable, "-m", "fuzz.one", name]
    short = name.removeprefix("hyperstart-")
    binary = CACHE / "bin" / short
    binary.parent.mkdir(parents=True, exist_ok=True)
    without = {"main.c", C_TARGETS[short]}
    sources = [p for p in sorted((TREE / "hyperstart/src").glob("*.c")) if p.name not in without]
    subprocess.run(
        ["clang", *CFLAGS, f"-I{TREE / 'hyperstart/include'}", "-o", str(binary), str(HERE / f"guest/{short}.c"),
         *map(str, sources)],
        check=True,
    )  # fmt: skip
    return [str(binary)]


if __name__ == "__main__":
    sys.exit(main())
