# SPDX-License-Identifier: Apache-2.0
"""Where the time of one `run` goes: `python -m bench.waterfall [--charts DIRECTORY]`.

Of several runs with `hyperctl run --trace`, the one of median length is shown,
for a machine of the pool, a clone and one that boots.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from hypercontainer.hyperctl.output import print_table

from . import charts
from .peers import Hyper, daemon, namespace

RUNS = 9


def _spans(path: Path) -> list[dict[str, Any]]:
    events = json.loads(path.read_text())["traceEvents"]
    lanes = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    return [{**e, "lane": lanes[e["tid"]]} for e in events if e["ph"] == "X"]


def _length(spans: list[dict[str, Any]]) -> float:
    return float(max(s["ts"] + s["dur"] for s in spans) - min(s["ts"] for s in spans))


def median_run(hyper: Hyper, directory: Path, *options: str, pool: bool, runs: int = RUNS) -> list[dict[str, Any]]:
    path = directory / "trace.json"
    found = []
    for _ in range(runs):
        if pool:
            hyper.pool_ready()
        hyper.ctl("run", "--rm", "--trace", str(path), *options, "busybox", "true")
        found.append(_spans(path))
    return sorted(found, key=_length)[runs // 2]


def show(kind: str, spans: list[dict[str, Any]]) -> None:
    """As a table."""
    print(f"\n{kind}: {_length(spans) / 1e3:.0f} ms")
    zero = min(s["ts"] for s in spans)
    rows = [
        [f"{(s['ts'] - zero) / 1e3:.1f}", f"{s['dur'] / 1e3:.1f}", s["lane"], s["name"]]
        for s in sorted(spans, key=lambda s: s["ts"])
    ]
    print_table(["BEGIN", "MS", "WHO", "WHAT"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.waterfall", description="Where the time of one run goes.")
    parser.add_argument("--charts", type=Path, help="a directory for pictures")
    args = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="hyb") as name, namespace() as space:
        directory = Path(name)
        with daemon(directory / "pool", space) as hyper:
            hyper.ctl("run", "--rm", "busybox", "true")
            found["pool"] = median_run(hyper, directory, pool=True)
        with daemon(directory / "clone", space, "--pool-memory", "0") as hyper:
            hyper.ctl("run", "--rm", "busybox", "true")
            hyper.templates_ready()
            found["clone"] = median_run(hyper, directory, pool=False)
            found["cold"] = median_run(hyper, directory, "--isolation", "fresh", pool=False)
    for kind, spans in found.items():
        show(kind, spans)
        if args.charts:
            charts.waterfall(spans, f"hyperctl run --rm busybox true, {kind}", args.charts / f"run-{kind}.png")


if __name__ == "__main__":
    main()
