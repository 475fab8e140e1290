# SPDX-License-Identifier: Apache-2.0
"""Fail when tests reach too few branches: `check_branches.py REPORT.json PERCENT`, of a report that coverage.py wrote.

coverage.py's own limit is of lines and branches together, of which the lines are the most.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(report: str, least: str) -> int:
    totals = json.loads(Path(report).read_text())["totals"]
    reached, of = totals["covered_branches"], totals["num_branches"]
    percent = 100 * reached / of
    print(f"{reached} of {of} branches: {percent:.1f} %")
    if percent < float(least):
        print(f"that is less than {least} %", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
