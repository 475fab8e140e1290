# SPDX-License-Identifier: Apache-2.0
"""The tables `sizes` and `quotas` of the configuration: machines by name, and who may have how much."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InvalidArgument
from ..model.quotas import Quota, read_quota
from ..model.sizes import DEFAULTS, Size, read_size


def sizes(table: Mapping[str, str]) -> dict[str, Size]:
    """Those that there are anyway, and those of the table: name -> VCPUS/MEMORY.

    :raise InvalidArgument: naming the key.
    """
    return {**DEFAULTS, **{name: read_size(name, text) for name, text in table.items()}}


def quotas(table: Mapping[str, Mapping[str, str | int]]) -> dict[str, Quota]:
    """Principals, or patterns of them -> what they may have.

    :raise InvalidArgument: naming the key.
    """
    found = {}
    for who, limits in table.items():
        try:
            found[who] = Quota(**read_quota({name: str(limit) for name, limit in limits.items()}))
        except InvalidArgument as error:
            raise InvalidArgument(f"quotas.{who}: {error.message}", hint=error.hint) from error
    return found
