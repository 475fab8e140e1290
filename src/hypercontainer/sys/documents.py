# SPDX-License-Identifier: Apache-2.0
"""Documents that somebody else wrote."""

from __future__ import annotations

import msgspec

# What msgspec raises for bytes that are not the document they should be: text in it that is no UTF-8 is no
# DecodeError to it, and neither is nesting without end.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
