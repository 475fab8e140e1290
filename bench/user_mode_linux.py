# SPDX-License-Identifier: Apache-2.0
"""Seven kinds of work by this host, in User Mode Linux and in QEMU's emulation (TCG): times, and ratios to the host.

`python -m bench.user_mode_linux [RUNS]`: needs gcc, cpio, Debian's package user-mode-linux and a built hyperkernel.
docs/adr/0014-no-user-mode-linux.md has what came of it.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from hypercontainer.kernel.locate import locate

_RUNS = 3
_EMULATED = [
    "qemu-system-x86_64", "-M", "microvm,acpi=off", "-accel", "tcg", "-cpu", "max", "-m", "256", "-nodefaults",
    "-no-reboot", "-display", "none", "-serial", "stdio", "-append", "console=ttyS0 quiet reboot=t -- reboot",
]  # fmt: skip
_LIMIT = 300  # seconds for one run
_RESULT = re.compile(r"RESULT ([\d.]+) ([a-z +]+)")


def main() -> None:
    uml = shutil.which("linux.uml")
    if uml is None:
        sys.exit("linux.uml is not installed: apt install user-mode-linux")
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else _RUNS
    with tempfile.TemporaryDirectory() as place:
        program, initrd = _made(Path(place))
        ways = {
            "host": [str(program)],
            "UML": [uml, "mem=256M", f"initrd={initrd}", "con=null", "con0=fd:0,fd:1"],
            "TCG": [*_EMULATED, "-kernel", str(locate().path), "-initrd", str(initrd)],
        }
        found: dict[str, dict[str, list[float]]] = {}
        for _ in range(runs):  # in turn, as the machine has other things to do
            for way, command in ways.items():
                for seconds, work in _RESULT.findall(_output(command)):
                    found.setdefault(work, {}).setdefault(way, []).append(float(seconds))
    _print(found)


def _made(place: Path) -> tuple[Path, Path]:
    """The program, and an initrd of nothing else."""
    root = place / "root"
    root.mkdir()
    source = Path(__file__).parent / "programs/work.c"
    subprocess.run(["gcc", "-O2", "-static", "-o", root / "init", source], check=True)
    with (place / "initrd").open("wb") as archive:
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=b"init\n", stdout=archive, check=True)
    return root / "init", place / "initrd"


def _output(command: list[str]) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LIMIT, check=False)
    return done.stdout.decode(errors="replace")


def _print(found: dict[str, dict[str, list[float]]]) -> None:
    print(f"{'':<12}{'host, s':>9}{'UML, s':>9}{'TCG, s':>9}{'UML : host':>12}{'TCG : host':>12}{'UML : TCG':>11}")
    for work, ways in found.items():
        host, uml, tcg = (statistics.median(ways[way]) for way in ("host", "UML", "TCG"))
        print(f"{work:<12}{host:>9.2f}{uml:>9.2f}{tcg:>9.2f}{uml / host:>12.1f}{tcg / host:>12.1f}{uml / tcg:>11.2f}")


if __name__ == "__main__":
    main()
