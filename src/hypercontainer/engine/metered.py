# SPDX-License-Identifier: Apache-2.0
"""What the holders of records ask of who accounts for use; `engine/metering` has the one that does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..model.fips import Fip
from ..model.status import Container, Pod, Volume
from ..state.changes import Change

Metered = Container | Pod | Volume | Fip


class Metering(Protocol):
    """Follows what is used."""

    def write(
        self, write: Callable[..., None], changes: Sequence[Change], *, put: Sequence[Metered] = (),
        gone: Sequence[Metered] = (),
    ) -> None:  # fmt: skip
        """Have changes written, together with what they mean for what is used; raises what `write` does."""


class Unmetered:
    """Of a daemon that accounts for nothing."""

    def write(
        self, write: Callable[..., None], changes: Sequence[Change], *, put: Sequence[Metered] = (),
        gone: Sequence[Metered] = (),
    ) -> None:  # fmt: skip
        write(*changes)
