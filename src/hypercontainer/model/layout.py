# SPDX-License-Identifier: Apache-2.0
"""The devices of a pod's machine."""

from __future__ import annotations

from .base import Model


class MachineLayout(Model, frozen=True, kw_only=True):
    """The devices that a machine was launched with: one that goes on from it, saved, has the same in the same order."""

    disks: list[str]  # what the guest finds them by
    nics: list[str]  # kinds: tap, user, stream, or spare
    expandable: bool = False
    balloon: bool = False
    directories: bool = False  # it is served directories of the host
