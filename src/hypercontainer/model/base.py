# SPDX-License-Identifier: Apache-2.0
"""The base of everything that travels over REST or rests in the database."""

from __future__ import annotations

import msgspec


class Model(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Immutable, strict about unknown keys, camelCase in JSON."""
