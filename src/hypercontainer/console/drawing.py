# SPDX-License-Identifier: Apache-2.0
"""Networks as a picture: each is a line downwards, each pod a line across, with a dot where the pod is in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..model.network import NetworkInfo
from ..model.status import Container

_LEFT, _COLUMN, _HEAD, _ROW = 200, 170, 56, 46  # units of the picture, which are pixels where it has room
_LETTERS = 22  # of a name that there is room for


class Line(NamedTuple):
    """A network, or a pod: its names, and from where to where it goes."""

    name: str
    about: str
    at: int
    end: int


class Dot(NamedTuple):
    """A pod in a network, and its address there."""

    x: int
    y: int
    text: str


class Drawing(NamedTuple):
    """All of the picture."""

    width: int
    height: int
    left: int
    networks: list[Line]
    pods: list[Line]
    dots: list[Dot]


def drawn(networks: Sequence[NetworkInfo], ports: Mapping[str, str]) -> Drawing:
    """`ports` are by the names of pods."""
    names = sorted({pod for n in networks for pod in n.pods})
    y_of = {name: _HEAD + _ROW // 2 + n * _ROW for n, name in enumerate(names)}
    height = _HEAD + max(1, len(names)) * _ROW + 10
    columns, furthest, dots = [], dict.fromkeys(names, _LEFT), []
    for n, info in enumerate(networks):
        x = _LEFT + 20 + n * _COLUMN
        columns.append(Line(cut(info.network.name), info.network.subnet, x, height - 6))
        for pod, addresses in info.pods.items():
            furthest[pod] = x
            dots.append(Dot(x, y_of[pod], addresses[0] if addresses else ""))
    rows = [Line(cut(name), cut(ports.get(name, "")), y_of[name], furthest[name]) for name in names]
    return Drawing(_LEFT + max(1, len(networks)) * _COLUMN, height, _LEFT, columns, rows, dots)


def published(containers: Iterable[Container], names: Mapping[str, str]) -> dict[str, str]:
    """What of the host leads to each pod; `names` has the pods' by their ids."""
    found: dict[str, list[str]] = {}
    for container in containers:
        words = [f"{p.host_port}→{p.container_port}" for p in container.ports if p.host_port]
        found.setdefault(names.get(container.pod, ""), []).extend(words)
    return {name: " ".join(words) for name, words in found.items()}


def cut(name: str) -> str:
    """As much of it as there is room for."""
    return name if len(name) <= _LETTERS else name[: _LETTERS - 1] + "…"
