# SPDX-License-Identifier: Apache-2.0
"""Descriptions of a running pod and of a volume beside their files: what finds them again when the database is lost.

One file in the machine's directory, or in the volume's: the SHA-256 of the rest in hexadecimal,
a line break, JSON. So one that was cut off or changed is not believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import field

from ..model.base import Model
from ..model.network import Network
from ..model.status import Container, Pod, Volume
from ..sys.documents import UNREADABLE

log = logging.getLogger(__name__)
NAME = "description"
T = TypeVar("T")


class Description(Model, frozen=True, kw_only=True):
    """The records that a pod needs to go on: its own, its containers', and those of what it uses."""

    pod: Pod
    containers: list[Container] = field(default_factory=list)
    volumes: list[Volume] = field(default_factory=list)
    networks: list[Network] = field(default_factory=list)


def write(directory: Path, what: Description | Volume) -> None:
    """Replace the one that is there; nothing happens when the directory is gone, as its machine then is."""
    body = msgspec.json.encode(what)
    new = directory / f".{NAME}"
    with contextlib.suppress(FileNotFoundError):
        try:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as f:
                f.write(_seal(body) + b"\n" + body)
            new.rename(directory / NAME)  # no fsync: one that is lost by a crash of the host is made again or missed
        except FileNotFoundError:
            raise
        except OSError as error:
            log.warning("%s cannot be written: %s", directory / NAME, error)


def read(directory: Path) -> Description | str:
    """A running pod's description, or why there is none."""
    return _read(directory, Description)


def read_volume(directory: Path) -> Volume | str:
    """A volume's record, or why there is none."""
    return _read(directory, Volume)


def _read(directory: Path, kind: type[T]) -> T | str:
    try:
        seal, _, body = (directory / NAME).read_bytes().partition(b"\n")
        if seal != _seal(body):
            return f"{directory / NAME} is damaged"
        return msgspec.json.decode(body, type=kind)
    except FileNotFoundError:
        return f"{directory} has no description"
    except (OSError, *UNREADABLE) as error:
        return f"{directory / NAME} cannot be read: {error}"


def _seal(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
