# SPDX-License-Identifier: Apache-2.0
"""Pictures of the figures, by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .measure import Figure

_OURS, _THEIRS = "#3d6fb6", "#b6b6b6"
LANES = {"hyperctl": "#7b8794", "hyperd": "#3d6fb6", "qemu": "#b6683d", "guest": "#3d9a5f"}


def _axes(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, height), layout="constrained")


def figures(found: Sequence[Figure], path: Path) -> None:
    """Bars of what has a peer."""
    shown = [f for f in found if f.peer]
    if not shown:
        return
    figure, axes = _axes(9, 0.6 * len(shown) + 1)
    for row, f in enumerate(reversed(shown)):
        axes.barh(row + 0.2, f.value, 0.38, color=_OURS, label="HyperContainer" if not row else None)
        axes.barh(row - 0.2, f.peer or 0, 0.38, color=_THEIRS, label="podman with runc" if not row else None)
        axes.text(f.value, row + 0.2, f" {f.value:.3f} s ({f.value / (f.peer or 1):.2f} x)", va="center", fontsize=8)
    axes.set_yticks(range(len(shown)), [f.name for f in reversed(shown)], fontsize=8)
    axes.set_xlabel("seconds, medians")
    axes.legend(loc="lower right")
    _save(figure, path)


def curve(times: Sequence[float], path: Path, at_a_time: int) -> None:
    """How many pods ran after so many seconds."""
    figure, axes = _axes(7, 4)
    axes.plot(times, range(1, len(times) + 1), color=_OURS)
    axes.set_xlabel(f"seconds since the first was asked for, {at_a_time} at a time")
    axes.set_ylabel("pods that run")
    axes.grid(alpha=0.3)
    _save(figure, path)


def waterfall(spans: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """What `hyperctl run --trace` found: name, lane, and microseconds as Chrome's trace format has them."""
    spans = sorted(spans, key=lambda s: (s["ts"], -s["dur"]))
    zero = spans[0]["ts"]
    figure, axes = _axes(10, 0.28 * len(spans) + 1)
    for row, s in enumerate(reversed(spans)):
        axes.barh(row, s["dur"] / 1e3, left=(s["ts"] - zero) / 1e3, color=LANES[s["lane"]])
        axes.text((s["ts"] - zero + s["dur"]) / 1e3, row, f" {s['dur'] / 1e3:.1f}", va="center", fontsize=7)
    axes.set_yticks(range(len(spans)), [f"{s['lane']}: {s['name']}" for s in reversed(spans)], fontsize=7)
    axes.set_xlabel("milliseconds")
    axes.set_title(title, fontsize=10)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
