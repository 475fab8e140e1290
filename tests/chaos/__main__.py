# SPDX-License-Identifier: Apache-2.0
"""A storm from a seed: its steps as they are done, the table of faults at the end; status 1 when something was lost."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

from .host import host
from .storm import Storm, report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="0 [default]: any")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--steps", type=int, default=0, help="so many, whatever time they take")
    options = parser.parse_args()
    seed = options.seed or random.SystemRandom().randrange(1, 1 << 30)
    place = Path(tempfile.mkdtemp(prefix="hyper-chaos-"))
    print(f"seed {seed}", flush=True)
    with host(place, f"c{os.getpid()}") as made:
        storm, failed = Storm(made, seed), None
        try:
            storm.run(steps=options.steps, seconds=options.minutes * 60)
        except (Exception, KeyboardInterrupt) as error:
            traceback.print_exc()
            failed = error
        report(storm, seed, failed)
    if failed:
        print(f"hyperd's log: {place}/hyperd.log; again: python -m tests.chaos --seed {seed}", file=sys.stderr)
        return 1
    shutil.rmtree(place)
    return 0


sys.exit(main())
