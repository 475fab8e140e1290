# SPDX-License-Identifier: Apache-2.0
"""How much somebody may have, and has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from ..errors import InvalidArgument
from .base import Model
from .units import format_binary, parse_size

Limit = Annotated[int, Meta(ge=0)] | None  # None: no limit


class Amounts(Model, frozen=True, kw_only=True):
    """How much there is of what quotas limit."""

    pods: int = 0
    containers: int = 0
    vcpus: int = 0  # of pods that run, or begin to
    memory: int = 0  # bytes, of those
    disk: int = 0  # bytes that containers' own disks and volumes may grow to
    volumes: int = 0
    networks: int = 0
    addresses: int = 0  # floating ones
    security_groups: int = 0
    deployments: int = 0
    crons: int = 0  # jobs
    snapshots: int = 0
    ports: int = 0  # of the host, that pods publish, running or not
    image_disk: int = 0  # bytes of images' disks
    snapshot_disk: int = 0  # bytes of snapshots, on the disk

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(**{name: getattr(self, name) + getattr(other, name) for name in NAMES})


NAMES = Amounts.__struct_fields__


class Quota(Model, frozen=True, kw_only=True):
    """What somebody may have at most."""

    pods: Limit = None
    containers: Limit = None
    vcpus: Limit = None
    memory: Limit = None  # bytes
    disk: Limit = None  # bytes
    volumes: Limit = None
    networks: Limit = None
    addresses: Limit = None  # floating ones
    security_groups: Limit = None
    deployments: Limit = None
    crons: Limit = None  # jobs
    snapshots: Limit = None
    ports: Limit = None
    image_disk: Limit = None  # bytes: with so much there, no further image is brought
    snapshot_disk: Limit = None  # bytes: with so much there, no further snapshot is made
    starts: Limit = None  # of pods, in a minute
    requests: Annotated[int, Meta(ge=1)] | None = None  # by REST, Docker's API and the console, in a minute


class QuotaStatus(Model, frozen=True, kw_only=True):
    """What who asks may have, and has."""

    of: str  # whose it is: a project's, a principal's, or "" where nobody limits them
    limits: Quota
    used: Amounts


BYTES = ("memory", "disk", "image_disk", "snapshot_disk")
MEASURED = ("image_disk", "snapshot_disk")  # known only when it is there: one more is refused when all is used


def read_quota(limits: Mapping[str, str]) -> dict[str, int | None]:
    """The fields of a `Quota`, from words: numbers, or sizes such as 4g; "none" is no limit.

    :raise InvalidArgument: naming what is wrong.
    """
    return {name: _read(name, text) for name, text in limits.items()}


def _read(name: str, text: str) -> int | None:
    if name not in Quota.__struct_fields__:
        raise InvalidArgument(f"there is no quota of {name!r}", hint=f"choose of {', '.join(Quota.__struct_fields__)}")
    if text == "none":
        return None
    if name in BYTES:
        return parse_size(text)
    if not text.isdecimal():
        raise InvalidArgument(f"invalid quota of {name} {text!r}", hint="give a number, or none")
    if name == "requests" and not int(text):
        raise InvalidArgument("a quota of requests is 1 at least", hint="give a number, or none")
    return int(text)


def write_amount(name: str, number: int) -> str:
    """So much of what a quota of this name limits, for people."""
    return format_binary(number) if name in BYTES else str(number)
