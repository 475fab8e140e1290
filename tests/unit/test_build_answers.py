# SPDX-License-Identifier: Apache-2.0
"""What is read of BuildKit's answers as they pass by, whatever pieces they come in."""

from __future__ import annotations

import pytest

from hypercontainer.engine.builder.solved import Answers, Asked, Solved, goaway
from hypercontainer.errors import Unavailable
from hypercontainer.model.protobuf import encoded

ID = "sha256:" + "a" * 64


def message(said: dict[str, str]) -> bytes:
    text = b"".join(encoded({1: encoded({1: key, 2: value})}) for key, value in said.items())
    return b"\0" + len(text).to_bytes(4, "big") + text


def frame(content: bytes, *, kind: int = 0, flags: int = 0, stream: int = 1) -> bytes:
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content


ANSWER = message({"image.name": "docker.io/library/x,y:2", "containerimage.config.digest": ID})


@pytest.mark.parametrize("size", [1, 2, 7, 100, 10_000])
def test_pieces_of_any_size(size: int) -> None:
    sent = frame(b"", kind=4) + frame(message({"a": "b"}) + ANSWER[:20]) + frame(b"head", kind=1, stream=3)
    sent += frame(bytes(70_000), kind=6) + frame(ANSWER[20:] + message({"c": "d"}), flags=1)
    answers, found = Answers(), []
    assert answers.nothing and answers.between
    for at in range(0, len(sent), size):
        found += answers.feed(sent[at : at + size])
    assert found == [Solved(ID, ["docker.io/library/x", "y:2"])]
    assert answers.between and not answers.nothing


def test_streams_apart() -> None:
    answers = Answers()
    assert answers.feed(frame(ANSWER[:9], stream=1) + frame(ANSWER[:9], stream=3)) == []
    assert answers.feed(frame(b"", kind=3, stream=1)) == []
    assert len(answers.feed(frame(ANSWER[9:], stream=3))) == 1
    assert answers.feed(frame(ANSWER[9:], stream=1)) == []


@pytest.mark.parametrize(
    "content",
    [
        message({"image.name": "x", "containerimage.config.digest": "busybox"}),
        message({"image.name": "x", "containerimage.digest": ID}),
        b"\0\0\0\0\x20" + b"containerimage.config.digest....",
        b"\0\xff\xff\xff\xff" + bytes(60_000),
    ],
)
def test_what_is_no_answer(content: bytes) -> None:
    assert Answers().feed(frame(content)) == []


def test_a_guest_fills_no_memory() -> None:
    """What has been taken over sends messages that do not end."""
    answers = Answers()
    for stream in range(1, 4001, 2):
        answers.feed(frame(b"\0\x7f\xff\xff\xff" + bytes(1000), stream=stream))
    assert len(answers._streams) <= 100
    for _ in range(100):
        answers.feed(frame(bytes([0, 127, 0, 0, 0]) + bytes(60_000)))
    assert len(answers._streams[1]) < 200_000


def test_what_asks_for_an_image() -> None:
    asked = Asked()
    assert not asked.feed(b"PRI * HTTP/2.0 ListWorkers moby \x1a\x04mo")
    assert asked.feed(b"by...")
    assert not asked.feed(b"\x1a\x05local")


def test_a_connection_ends_with_the_reason() -> None:
    text = goaway(Unavailable("the reason"), first=True)
    assert text[:9] == bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]) and text[9 + 3] == 7 and text.endswith(b"the reason")
    assert goaway(Unavailable("the reason"), first=False) == text[9:]
