# SPDX-License-Identifier: Apache-2.0
"""One Python target below atheris: `python -m fuzz.one NAME [libFuzzer's options and directories]`."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["hypercontainer", "tarfile", "dnslib"]):  # what is told of coverage
    from .targets import TARGETS


def main() -> None:
    target = TARGETS[sys.argv[1]]

    def run(data: bytes) -> int:
        target(data)
        return 0

    atheris.Setup([sys.argv[0], *sys.argv[2:]], run)
    atheris.Fuzz()


main()
