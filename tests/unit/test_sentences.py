# SPDX-License-Identifier: Apache-2.0
"""Every kind of message of msgspec's is a sentence for a person."""

from __future__ import annotations

import datetime
import decimal
import enum
import re
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from hypercontainer.hyperd.config import Config
from hypercontainer.model.sentences import explain
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.podfile.document import Podfile


class Colour(enum.StrEnum):
    RED = "red"
    GREEN = "green"


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    count: Annotated[int, Meta(ge=1)]


class Part(msgspec.Struct, forbid_unknown_fields=True):
    image: str = ""
    inner: list[Inner] = []
    named: dict[str, Inner] = {}
    keys: dict[int, int] = {}
    kind: Literal["", "tcp", "udp"] = ""
    colour: Colour = Colour.RED
    number: int | None = None


def said(type_: Any, raw: Any) -> str:
    """What is said of a document in JSON; the same as of an object, where that fails too."""
    with pytest.raises(msgspec.ValidationError) as error:
        msgspec.json.decode(msgspec.json.encode(raw), type=type_)
    return explain(error.value, raw, type_)


def meta(type_: Any, **how: Any) -> Any:
    return Annotated[type_, Meta(**how)]


DOCUMENT = "the document: "


@pytest.mark.parametrize(
    ("type_", "raw", "says"),
    [
        (Part, {"inner": [{"count": 1}, {"count": 0}]}, "inner[1].count: must be a whole number of at least 1, not 0"),
        (Part, {"named": {"x": {"count": "many"}}}, "named[...].count: must be a whole number"),
        (Part, {"keys": {"x": 1}}, "a key of keys: must be a whole number"),
        (Part, {"imgae": 1}, DOCUMENT + "unknown key 'imgae'"),
        (Part, {"inner": [{}]}, "inner[0]: 'count' is missing"),
        (Part, {"kind": "icmp"}, "kind: 'icmp' is none of '', tcp, udp"),
        (Part, {"colour": "blue"}, "colour: 'blue' is none of red, green"),
        (Part, {"number": "2"}, 'number: must be a whole number, not "2"'),
        (Part, {"inner": {"count": 1}}, "inner: must be a list, not a mapping"),
        (Part, {"image": None}, "image: must be text, not nothing"),
        (Part, {"image": [1, 2]}, "image: must be text, not a list of 2"),
        (Part, {"image": False}, "image: must be text, not false"),
        (Part, ["x"], DOCUMENT + "must be a mapping, not a list of 1"),
        (int | str, 1.5, DOCUMENT + "must be a whole number or text, not 1.5"),
        (Part, {"inner": ["y" * 100]}, f'inner[0]: must be a mapping, not "{"y" * 59}…'),
        (meta(int, gt=1), 1, DOCUMENT + "must be a whole number of at least 2, not 1"),
        (meta(int, le=9), 10, DOCUMENT + "must be a whole number of at most 9, not 10"),
        (meta(int, lt=9), 10, DOCUMENT + "must be a whole number of at most 8, not 10"),
        (meta(int, multiple_of=4), 5, DOCUMENT + "must be a whole number, a multiple of 4, not 5"),
        (meta(float, gt=0), 0, DOCUMENT + "must be a number above 0, not 0"),
        (meta(float, ge=0.5), 0, DOCUMENT + "must be a number of at least 0.5, not 0"),
        (meta(float, lt=2), 2, DOCUMENT + "must be a number below 2, not 2"),
        (meta(float, le=2), 3, DOCUMENT + "must be a number of at most 2, not 3"),
        (meta(float, multiple_of=0.5), 0.7, DOCUMENT + "must be a number, a multiple of 0.5, not 0.7"),
        (meta(str, min_length=1), "", DOCUMENT + 'must have at least 1 character, not ""'),
        (meta(str, max_length=2), "abc", DOCUMENT + 'must have at most 2 characters, not "abc"'),
        (meta(str, pattern="^a+$"), "b", DOCUMENT + 'must have the form ^a+$, not "b"'),
        (meta(list[int], min_length=1), [], DOCUMENT + "must have at least 1 entry, not []"),
        (meta(list[int], max_length=1), [1, 2], DOCUMENT + "must have at most 1 entry, not a list of 2"),
        (meta(dict[str, int], min_length=1), {}, DOCUMENT + "must have at least 1 entry, not {}"),
        (tuple[int, int], [1], DOCUMENT + "must have exactly 2 entries, not a list of 1"),
        (meta(datetime.datetime, tz=True), "2026-01-01T00:00:00",
         DOCUMENT + "must be a date and time with a time zone"),
        (datetime.datetime, "yesterday", DOCUMENT + "must be a date and time as in 2026-01-31T12:00:00Z, not"),
        (datetime.date, "x", DOCUMENT + "must be a date as in"),
        (datetime.time, "x", DOCUMENT + "must be a time of day as in"),
        (datetime.timedelta, "x", DOCUMENT + "must be a duration as in PT1H30M"),
        (uuid.UUID, "x", DOCUMENT + "must be a UUID"),
        (decimal.Decimal, "x", DOCUMENT + "must be a number"),
        (bytes, "*", DOCUMENT + 'must be base64, not "*"'),
        (Literal[1, 2], 3, DOCUMENT + "3 is none of 1, 2"),
        (ContainerSpec, {"image": "x", "stopTimeout": -1}, "stopTimeout: must be a whole number of at least 0, not -1"),
        (Podfile, {"containers": [{"image": "x", "healthCheck": {"http": {"port": 0}}}]},
         "containers[0].healthCheck.http.port: must be a whole number of at least 1, not 0"),
        (Config, {"log_level": "loud"}, "log_level: 'loud' is none of debug, error, info, warning"),
    ],
)  # fmt: skip
def test_a_sentence(type_: Any, raw: Any, says: str) -> None:
    found = said(type_, raw)
    assert found.startswith(says)
    assert "`" not in found and "xpected" not in found


def test_text_that_is_no_json() -> None:
    for text, says in (
        (b"{", "no JSON: input data was truncated"),
        (b"{'a'}", "no JSON: object keys must be strings (byte 1)"),
    ):
        with pytest.raises(msgspec.DecodeError) as error:
            msgspec.json.decode(text, type=Part)
        assert explain(error.value) == says


def test_what_a_check_of_ours_says_stays() -> None:
    class Checked(msgspec.Struct):
        at: str

        def __post_init__(self) -> None:
            raise ValueError(f"TCP has no {self.at}")

    assert said(list[Checked], [{"at": "door"}]) == "[0]: TCP has no door"


def test_no_kind_of_message_is_left_out() -> None:
    """The formats in the library itself: those with a path at their end are what it says of a document."""
    library = Path(msgspec._core.__file__).read_bytes()
    strings = {s.decode() for s in re.findall(rb"[\x20-\x7e]{6,}", library)}
    formats = sorted(
        s
        for s in strings
        if s.endswith("%U") and re.match("Expected|Invalid|Object|Integer|Number|Timestamp|Duration", s)
    )
    assert len(formats) > 25
    for text in formats:
        if "MessagePack" in text:  # nothing is read in that
            continue
        sample = text.removesuffix("%U")
        sample = sample.replace("%R", "'0.5'" if "regex" in sample else "0.5").replace("float` %s", "float` >=")
        sample = re.sub("%s|%U", "int", re.sub(r"%(zd|lld|llu)", "3", sample))
        found = explain(msgspec.ValidationError(sample + " - at `$.x`"))
        assert found.startswith("x: ") and "`" not in found, text
        assert not re.match("x: (expected|invalid|object|integer|number|timestamp|duration)", found), text
