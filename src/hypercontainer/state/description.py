# SPDX-License-Identifier: Apache-2.0
"""A description of a running pod beside its virtual machine: what finds it again when the database is lost.

One file in the machine's directory: the SHA-256 of the rest in hexadecimal,
a line break, JSON. So one that was cut off or changed is not believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from pathlib import Path

import msgspec
from msgspec import field

from ..model.base import Model
from ..model.network import Network
from ..model.status import Container, Pod, Volume

log = logging.getLogger(__name__)
NAME = "description"


class Description(Model, frozen=True, kw_only=True):
    """The records that a pod needs to go on: its own, its containers', and those of what it uses."""

    pod: Pod
    containers: list[Container] = field(default_factory=list)
    volumes: list[Volume] = field(default_factory=list)
    networks: list[Network] = field(default_factory=list)


def write(directory: Path, description: Description) -> None:
    """Replace the one that is there; nothing happens when the directory is gone, as its machine then is."""
    body = msgspec.json.encode(description)
    new = directory / f".{NAME}"
    with contextlib.suppress(FileNotFoundError):
        try:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as f:
                f.write(_seal(body) + b"\n" + body)
            new.rename(directory / NAME)  # no fsync: it ends with the host's run, as the machine does
        except FileNotFoundError:
            raise
        except OSError as error:
            log.warning("%s cannot be written: %s", directory / NAME, error)


def read(directory: Path) -> Description | str:
    """The description, or why there is none."""
    try:
        seal, _, body = (directory / NAME).read_bytes().partition(b"\n")
        if seal != _seal(body):
            return f"{directory / NAME} is damaged"
        return msgspec.json.decode(body, type=Description)
    except FileNotFoundError:
        return f"{directory} has no description"
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"{directory / NAME} cannot be read: {error}"


def _seal(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
