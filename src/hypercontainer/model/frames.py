# SPDX-License-Identifier: Apache-2.0
"""Frames of an attached connection, drawn in `api/upgrade.py`: their types and their head; imports next to nothing."""

from __future__ import annotations

import struct

STDIN, STDOUT, STDERR, STATUS, RESIZE = range(5)
HEADER = struct.Struct(">B3xI")  # type, bytes of what follows
