# SPDX-License-Identifier: Apache-2.0
"""A builder that was taken over, and contexts that are made to fill hyperd: sentences, and bounds."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable

import pytest

from hypercontainer.engine.builder.names import NameFinder
from hypercontainer.engine.builder.passing import Made, Plain
from hypercontainer.errors import HyperError
from hypercontainer.guest.fake_process import FakeProcess

from . import fake_dockerd
from .fake_dockerd import FakeDockerd
from .stage import Stage
from .test_builds import build, built, dockerd

__all__ = ["build", "dockerd"]
WRONG: dict[str, bytes] = {
    "no document": b"{",
    "another document": b'{"a": 1}',
    "no images": b"[1, null]",
    "images without names": b'[{"Id": 1, "RepoTags": [1]}]',
    "a deep document": b"[" * 200_000,
    "a long document": b" " * (17 << 20),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_builder_that_was_taken_over(
    build: Callable[..., None], dockerd: FakeDockerd, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """What it says is a reason why a build fails; hyperd builds with the next one."""
    real = fake_dockerd._send

    async def says(p: FakeProcess, body: bytes, status: str = "200 OK") -> None:
        await real(p, WRONG[what] if lies and body.startswith(b"[") else body, status)

    lies = True
    monkeypatch.setattr(fake_dockerd, "_send", says)

    async def scenario(s: Stage) -> None:
        nonlocal lies
        with pytest.raises(HyperError, match="the builder") as refused:
            await built(s, "app:latest")
        assert refused.value.code != "internal"
        lies = False
        await built(s, "app:latest")
        assert s.engine.images.find("app")

    build(scenario)


def test_what_little_unpacks_to_comes_in_slices() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = packer.compress(bytes(64 << 20)) + packer.compress(b"FROM base") + packer.flush()
    plain, finder, total, names = Plain(), NameFinder(), 0, list[str]()
    for at in range(0, len(packed), 1 << 16):
        for part in plain.of(packed[at : at + (1 << 16)]):
            assert len(part) <= 1 << 20
            total += len(part)
            names += finder.feed(part)
    assert (total, names) == ((64 << 20) + 9, ["base"])


def test_a_context_that_is_damaged_or_not_packed() -> None:
    assert b"".join(Plain().of(b"FROM x")) == b"FROM x"
    assert b"".join(Plain().of(b"\x1f\x8bnonsense")) == b""


def test_names_without_end_are_not_kept() -> None:
    finder = NameFinder()
    found = [
        name for n in range(20) for name in finder.feed(b"".join(b"FROM a%d\n" % (n * 100 + k) for k in range(100)))
    ]
    assert len(found) == len(finder.seen) == 1000


@pytest.mark.parametrize("line", [b"[" * 100_000 + b'"error', b'{"ID": [', json.dumps({"aux": 1, "ID": 2}).encode()])
def test_answers_that_are_none(line: bytes) -> None:
    made = Made()
    made.feed(line + b"\n")
    assert (made.id, made.failed) == ("", False)
