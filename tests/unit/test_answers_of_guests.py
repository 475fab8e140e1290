# SPDX-License-Identifier: Apache-2.0
"""Lists and requests as large as a guest or a user can make them."""

from __future__ import annotations

import os
import time

import msgspec
import pytest

from hypercontainer.engine import archive, guest_files
from hypercontainer.errors import InvalidArgument
from hypercontainer.guest.session import GuestSession, State
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.model.status import Container, Process
from hypercontainer.protocol.constants import Type


def _container() -> Container:
    process = Process(args=["x"], env=[], cwd="/", user="", stop_signal=15)
    spec = ContainerSpec(image="x")
    return Container(
        id="a" * 64,
        name="box",
        pod="a" * 64,
        created_at="2026",
        image="x",
        image_id="sha256:1",
        hostname="h",
        process=process,
        spec=spec,
    )


def _changes(*lines: str) -> list[tuple[str, str]]:
    found = "".join(f"{line}\0" for line in lines).encode("utf-8", "surrogateescape")
    return [(c.kind, c.path) for c in archive._listed(found, _container())]


def test_what_was_made_for_mounts_is_no_change() -> None:
    assert _changes("C /etc", "A /etc/hosts", "A /proc", "A /tmp", "A /tmp/x") == [("A", "/tmp"), ("A", "/tmp/x")]
    assert _changes("C /etc", "A /etc/hosts", "C /etc/passwd") == [("C", "/etc"), ("C", "/etc/passwd")]
    assert _changes("C /etc", "A /etc/hosts", "A /etc-x") == [("A", "/etc-x")]


def test_many_changes_take_no_longer_each_than_few() -> None:
    lines = [
        "A /etc/hosts",
        "C /etc",
        *(f"A /srv/d{n // 100}/f{n}" for n in range(200_000)),
        *(f"A /srv/d{n}" for n in range(2000)),
    ]
    began = time.process_time()
    assert len(_changes(*lines)) == 202_000
    assert time.process_time() - began < 10  # seconds; it took hours


def test_names_that_are_no_text_are_shown() -> None:
    (change,) = _changes("A /x" + os.fsdecode(b"\xff"))
    assert msgspec.json.encode(change) == '["A","/x\ufffd"]'.encode()


def test_secrets_beyond_what_a_guest_takes_are_named_with_the_limit() -> None:
    guest_files.check_size(_container(), guest_files.FILES_MAX)
    with pytest.raises(
        InvalidArgument, match="secrets and files of container box have 2000000 bytes in all, and 921600 is the most"
    ):
        guest_files.check_size(_container(), 2_000_000)


async def test_a_request_beyond_what_a_guest_takes_is_the_users_error() -> None:
    session = GuestSession(b"0123456789abcdef")
    session.state = State.RUNNING
    with pytest.raises(InvalidArgument, match="PROCESS_START would take a message of"):
        await session.request(Type.PROCESS_START, [(1, b"x" * (1 << 20))])
