# SPDX-License-Identifier: Apache-2.0
"""Where the time of a `run` went: a picture, Chrome's trace format, or a table.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU has the format,
which https://ui.perfetto.dev shows.
"""

from __future__ import annotations

import json
import os
import sys
import time
from html import escape
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument, Unavailable

_LANES = {"hyperctl": "#7b8794", "hyperd": "#3d6fb6", "qemu": "#b6683d", "guest": "#3d9a5f"}
_ROW, _BAR, _LEFT, _WIDTH = 20, 14, 300, 1100  # pixels


def _began() -> int:
    """When this process was started, in nanoseconds since the epoch; as exact as the kernel's ticks."""
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    since_boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return time.time_ns() - (since_boot - int(stat[19]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK"))


def check(path: str, *, detach: bool) -> None:
    """:raise InvalidArgument: when nothing could be written after the run."""
    if detach:
        raise InvalidArgument("a run in the background is not traced", hint="leave -d out")
    if path != "-" and Path(path).suffix not in _FORMATS:
        raise InvalidArgument(
            f"unknown kind of trace {path!r}", hint="name a file that ends in .svg or .json, or - for a table"
        )


def write(path: str, sent: int, found: list[dict[str, Any]]) -> None:
    """Write the daemon's spans and our own; `sent` is when we asked it, in nanoseconds since the epoch.

    :raise Unavailable: the file cannot be written.
    """
    own = [
        {"lane": "hyperctl", "name": "Python, flags read", "begin": _began(), "end": sent},
        {"lane": "hyperctl", "name": "answer awaited, output copied", "begin": sent, "end": time.time_ns()},
    ]
    spans = sorted([*own, *found], key=lambda s: (s["begin"], -s["end"]))
    if path == "-":
        print(table(spans), file=sys.stderr)
        return
    try:
        Path(path).write_text(_FORMATS[Path(path).suffix](spans))
    except OSError as error:
        raise Unavailable(f"cannot write {path}: {error.strerror}") from error


def table(spans: list[dict[str, Any]]) -> str:
    """A line per span, in milliseconds."""
    zero = spans[0]["begin"]
    lines = [f"{'BEGIN':>8} {'MS':>8}  {'WHO':<9} WHAT"]
    for s in spans:
        lines.append(
            f"{(s['begin'] - zero) / 1e6:8.1f} {(s['end'] - s['begin']) / 1e6:8.1f}  {s['lane']:<9} {s['name']}"
        )
    return "\n".join(lines)


def chrome(spans: list[dict[str, Any]]) -> str:
    """Complete events; times are microseconds."""
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": 1, "tid": i, "name": "thread_name", "args": {"name": lane}} for i, lane in enumerate(_LANES)
    ]
    for s in spans:
        events.append(
            {
                "ph": "X", "pid": 1, "tid": list(_LANES).index(s["lane"]), "name": s["name"],
                "ts": s["begin"] / 1e3, "dur": (s["end"] - s["begin"]) / 1e3,
            }
        )  # fmt: skip
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}, indent=1) + "\n"


def picture(spans: list[dict[str, Any]]) -> str:
    """A waterfall as SVG."""
    zero, end = min(s["begin"] for s in spans), max(s["end"] for s in spans)
    scale = (_WIDTH - _LEFT - 80) / max(end - zero, 1)
    height = _ROW * (len(spans) + 2)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
    ]
    for i, (lane, colour) in enumerate(_LANES.items()):
        out.append(
            f'<rect x="{10 + 100 * i}" y="5" width="10" height="10" fill="{colour}"/>'
            f'<text x="{25 + 100 * i}" y="14">{lane}</text>'
        )
    for row, s in enumerate(spans, start=1):
        x, y = _LEFT + (s["begin"] - zero) * scale, _ROW * row + 6
        width = max((s["end"] - s["begin"]) * scale, 1)
        out.append(f'<text x="{_LEFT - 8}" y="{y + 11}" text-anchor="end">{escape(s["name"])}</text>')
        out.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{_LANES[s["lane"]]}"/>')
        out.append(
            f'<text x="{x + width + 4:.1f}" y="{y + 11}" fill="#555">{(s["end"] - s["begin"]) / 1e6:.1f} ms</text>'
        )
    return "\n".join([*out, "</svg>", ""])


_FORMATS = {".svg": picture, ".json": chrome}
