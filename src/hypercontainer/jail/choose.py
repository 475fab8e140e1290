# SPDX-License-Identifier: Apache-2.0
"""Which jail a daemon has, by its configuration and its host."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ..errors import Unavailable
from .hyperjail import HyperJail
from .jail import Jail
from .plain import PlainJail

log = logging.getLogger(__name__)
HINT = 'allow it, or let hypervisors see this host with `jail = "off"` in hyperd\'s configuration'


def choose(wanted: str, place: Path) -> Jail:
    """`wanted` is auto, on or off; `place` a directory of the daemon's own.

    Root's daemon does without a jail only when it is told to; a user's, unless it
    is told not to, where the host does not let users have namespaces.

    :raise Unavailable: there shall be a jail, and can be none.
    """
    if wanted == "off":
        return PlainJail()
    jail = HyperJail(place)
    why = jail.hindrance()
    if not why:
        return jail
    if wanted == "on" or os.geteuid() == 0:
        raise Unavailable(f"hypervisors cannot be jailed on this host: {why}", hint=HINT)
    log.warning("hypervisors run without a jail: %s", why)
    return PlainJail()
