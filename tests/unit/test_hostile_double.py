# SPDX-License-Identifier: Apache-2.0
"""The hyperstart that breaks the protocol is made of parts of the real one: it must compile when these change."""

from __future__ import annotations

from tests import hostile


def test_it_is_made() -> None:
    assert list(hostile.CASES.values()) == list(range(len(hostile.CASES))) and len(hostile.CASES) > 30
    assert hostile.initramfs_of(1) != hostile.initramfs_of(2)
