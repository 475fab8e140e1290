# SPDX-License-Identifier: Apache-2.0
"""Floating addresses: what is asked for, what is kept, and what is told of one."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET

from .base import Model
from .principal import Tenant


class FipRequest(Model, frozen=True, kw_only=True):
    """One to allocate, of the pools that the daemon is configured with."""

    name: str = ""  # "": its address
    version: Literal[4, 6] = 4  # of IP
    address: str = ""  # "": any that is free


class FipName(Model, frozen=True, kw_only=True):
    """What it is to be called."""

    name: str


class FipTarget(Model, frozen=True, kw_only=True):
    """What is to be reached by it: a container or pod, by name or id."""

    pod: str


class Fip(Model, frozen=True, kw_only=True):
    """A project's floating address."""

    id: str
    name: str
    address: str
    created_at: str  # moment
    pod: str = ""  # the id of the pod that was given it last; the pod may be gone
    owner: str = ""
    tenant: Tenant = UNSET


class FipInfo(Model, frozen=True, kw_only=True):
    """For the API."""

    id: str
    name: str
    address: str
    created_at: str  # moment
    pod: str = ""  # the name of the pod that is reached by it; "": none is
    owner: str = ""
