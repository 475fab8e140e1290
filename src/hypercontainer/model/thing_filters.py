# SPDX-License-Identifier: Apache-2.0
"""Docker's filters of volumes and networks: of lists, and of prunes; and such of snapshots of volumes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..errors import InvalidArgument
from .filters import Filters, flag, has_labels
from .network import DEFAULT_NETWORK, NetworkInfo
from .status import Volume, VolumeInfo
from .volume_snapshots import VolumeSnapshot

VOLUME_FILTERS = ("name", "dangling", "driver", "label")
VOLUME_SNAPSHOT_FILTERS = ("name", "volume", "manner", "label")
NETWORK_FILTERS = ("name", "id", "driver", "label", "type", "scope", "dangling")
VOLUME_PRUNE_FILTERS = ("all", "label")
NETWORK_PRUNE_FILTERS = ("label", "until")
_KNOWN = {"type": ("builtin", "custom"), "scope": ("local", "global", "swarm")}
_LOCAL = "local"  # what Docker calls the driver of volumes that are on this host


def fits(filters: Filters, key: str, *texts: str) -> bool:
    """Whether one of the texts is what a filter says, or matches it as a regular expression; of several any will do."""
    return key not in filters or any(_found(wanted, text) for wanted in filters[key] for text in texts)


def _found(wanted: str, text: str) -> bool:
    try:
        return wanted == text or re.search(wanted, text) is not None
    except re.error:
        return wanted in text


def volume_fits(volume: Volume, used: bool, filters: Filters) -> bool:
    """:raise InvalidArgument: a value is none."""
    dangling = flag(filters, "dangling")
    return (
        fits(filters, "name", volume.name)
        and dangling in (None, not used)
        and ("driver" not in filters or bool({_LOCAL, volume.driver} & {*filters["driver"]}))
        and has_labels(volume.labels, filters)
    )


def network_fits(
    filters: Filters, *, name: str, id_: str, driver: str, labels: Mapping[str, str], builtin: bool, used: bool
) -> bool:
    """:raise InvalidArgument: a value is none."""
    dangling = flag(filters, "dangling")
    return (
        fits(filters, "name", name)
        and fits(filters, "id", id_)
        and ("driver" not in filters or driver in filters["driver"])
        and ("scope" not in filters or _LOCAL in filters["scope"])
        and ("type" not in filters or ("builtin" if builtin else "custom") in filters["type"])
        and dangling in (None, not used and not builtin)
        and has_labels(labels, filters)
    )


def select_volumes(found: Iterable[VolumeInfo], filters: Filters) -> list[VolumeInfo]:
    """Those that the filters let through.

    :raise InvalidArgument: a value is none.
    """
    return [v for v in found if volume_fits(v.volume, bool(v.used_by), filters)]


def select_volume_snapshots(found: Iterable[VolumeSnapshot], filters: Filters) -> list[VolumeSnapshot]:
    """Those that the filters let through; `volume` is one's whole name."""
    return [
        s for s in found
        if fits(filters, "name", s.name) and ("volume" not in filters or s.volume in filters["volume"])
        and ("manner" not in filters or s.manner in filters["manner"]) and has_labels(s.labels, filters)
    ]  # fmt: skip


def select_networks(found: Iterable[NetworkInfo], filters: Filters) -> list[NetworkInfo]:
    """Those that the filters let through.

    :raise InvalidArgument: a value is none.
    """
    for key, known in _KNOWN.items():
        for value in filters.get(key, []):
            if value not in known:
                raise InvalidArgument(f"invalid filter '{key}={value}'", hint=f"use one of {', '.join(known)}")
    return [n for n in found if _network_fits(n, filters)]


def _network_fits(n: NetworkInfo, filters: Filters) -> bool:
    own = n.network
    return network_fits(
        filters, name=own.name, id_=own.id, driver="bridge", labels=own.labels, builtin=own.name == DEFAULT_NETWORK,
        used=bool(n.pods),
    )  # fmt: skip
