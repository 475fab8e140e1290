# SPDX-License-Identifier: Apache-2.0
"""What `hyperctl build` sends, and what it prints of what is told."""

from __future__ import annotations

import base64
import io
import os
import socket
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from hypercontainer.engine.builder.names import NameFinder
from hypercontainer.engine.builder.passing import with_network
from hypercontainer.errors import HyperError, InvalidArgument, NotFound
from hypercontainer.hyperctl import build as build_command
from hypercontainer.hyperctl import buildprogress
from hypercontainer.hyperctl.buildbases import base_images
from hypercontainer.hyperctl.buildcontext import BuildContext, open_context
from hypercontainer.hyperctl.buildprogress import Progress, excerpt, waiting
from hypercontainer.hyperctl.dockerignore import Ignored
from hypercontainer.model.protobuf import decoded

# What moby's own tests of its pattern matcher say, and what its documentation does.
IGNORED = [
    ("**", "file", True), ("**", "dir/file", True), ("**/", "dir/file", True), ("**/**", "dir/file", True),
    ("dir/**", "dir/file", True), ("dir/**", "dir/dir2/file", True), ("**/dir", "dir", True),
    ("**/dir2/*", "dir/dir2/file", True), ("**/dir2/**", "dir/dir2/dir3/file", True), ("**file", "dir/file", True),
    ("**/file", "file", True), ("**/file", "dir/dir/file", True), ("**/file*.txt", "dir/file1.txt", True),
    ("**/**/*.txt", "dir/dir/a.txt", True), ("a*b", "a.b", True), ("a?b", "acb", True), ("a?b", "a/b", False),
    ("*.go", "dir/a.go", False), ("*", "dir/a.go", True), ("dir", "dir/a/b", True), ("/dir", "dir/a", True),
    ("./dir/", "dir/a", True), ("dir/*", "dir", False), ("[a-c]x", "bx", True), ("[^a]x", "ax", False),
    ("[^a]x", "bx", True), ("a\\*b", "a*b", True), ("a\\*b", "acb", False), ("a.b", "axb", False),
    ("dir\n!dir/keep", "dir/keep", False), ("dir\n!dir/keep", "dir/other", True),
    ("*\n!a\na", "a", True), ("# dir", "# dir", False), ("../dir", "dir", False), ("  spaced  ", "spaced", True),
]  # fmt: skip


@pytest.mark.parametrize(("text", "path", "out"), IGNORED)
def test_patterns_of_dockerignore(text: str, path: str, out: bool) -> None:
    assert Ignored(text).leaves_out(path) is out


def test_a_pattern_that_is_none_is_told() -> None:
    with pytest.raises(InvalidArgument):
        Ignored("[a")


def members(context: BuildContext) -> dict[str, tarfile.TarInfo]:
    assert context.body is not None
    with tarfile.open(fileobj=io.BytesIO(b"".join(context.body))) as tar:
        return {m.name: m for m in tar.getmembers()}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    (root / "src/deep").mkdir(parents=True)
    (root / "Dockerfile").write_text("FROM busybox\n")
    (root / "src/main").write_text("main")
    (root / "src/main").chmod(0o755)
    (root / "src/deep/note").write_text("note")
    (root / "link").symlink_to("src/main")
    os.link(root / "src/main", root / "src/second")
    return root


def test_a_directory_is_sent_as_it_is_and_as_roots(tree: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "socket"))
        context = open_context(str(tree), "")
        found = members(context)
    assert set(found) == {"Dockerfile", "link", "src", "src/deep", "src/deep/note", "src/main", "src/second"}
    assert (found["src/main"].mode, found["src/main"].uid, found["src/main"].size) == (0o755, 0, 4)
    assert (found["link"].linkname, found["src/second"].linkname) == ("src/main", "src/main")
    assert (context.query, context.dockerfile) == ({"dockerfile": "Dockerfile"}, "FROM busybox\n")


def test_what_is_left_out_is_not_sent_but_the_dockerfile_is(tree: Path) -> None:
    (tree / ".dockerignore").write_text("Dockerfile\n*\n!src/deep\n")
    assert set(members(open_context(str(tree), ""))) == {".dockerignore", "Dockerfile", "src/deep", "src/deep/note"}


def test_a_dockerfile_may_have_an_ignore_file_of_its_own(tree: Path) -> None:
    (tree / ".dockerignore").write_text("src\n")
    (tree / "src/Other").write_text("FROM scratch\n")
    (tree / "src/Other.dockerignore").write_text("link\n")
    context = open_context(str(tree), str(tree / "src/Other"))
    found = set(members(context))
    assert context.query == {"dockerfile": "src/Other"}
    assert "src/main" in found and "link" not in found


def test_a_dockerfile_elsewhere_goes_along(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "Elsewhere").write_text("FROM scratch\n")
    context = open_context(str(tree), str(tmp_path / "Elsewhere"))
    assert context.query["dockerfile"] in members(context) and context.query["dockerfile"] != "Dockerfile"


def test_a_url_is_the_builders_to_fetch() -> None:
    context = open_context("https://example.org/a.git#main:dir", "sub/Dockerfile")
    assert context == BuildContext(
        {"remote": "https://example.org/a.git#main:dir", "dockerfile": "sub/Dockerfile"}, None
    )


@pytest.mark.parametrize(("path", "dockerfile"), [("/nowhere", ""), (".", "/nowhere/Dockerfile"), ("-", "-")])
def test_what_is_not_there_is_told(path: str, dockerfile: str) -> None:
    with pytest.raises(HyperError):
        open_context(path, dockerfile)


DOCKERFILE = """\
ARG BASE=debian:12
ARG QUOTED="quoted:1"
FROM --platform=linux/arm64 golang:1.22 AS build
FROM build AS test
from ${BASE} as Final
FROM $QUOTED
FROM ${NONE:-spare:2}
FROM ${UNKNOWN}
FROM scratch
FROM final
"""


def test_images_that_a_dockerfile_begins_with() -> None:
    found = base_images(DOCKERFILE, {"BASE": "debian:13"})
    assert found == [("golang:1.22", "linux/arm64"), ("debian:13", ""), ("quoted:1", ""), ("spare:2", "")]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_names_are_found_wherever_the_pieces_end(size: int) -> None:
    sent = b"\0\0FROM  --platform=$BUILDPLATFORM example.org:5000/a/b@sha256:12 AS x\nARG B=two:1\n"
    sent += (
        b"COPY --from=three /a /b\nRUN --mount=type=bind,from=four,target=/x ls\n" + b"build-arg:C\x12\x06five:1\x1a"
    )
    finder = NameFinder()
    found = {name for at in range(0, len(sent), size) for name in finder.feed(sent[at : at + size])}
    assert {"example.org:5000/a/b@sha256:12", "two:1", "three", "four", "five:1"} <= found


@pytest.mark.parametrize(
    ("given", "asked"),
    [([], "host"), (["default"], "host"), ([""], "host"), (["none"], "none"), (["bridge"], "default")],
)
def test_run_has_the_builders_own_network_unless_another_is_named(given: list[str], asked: str) -> None:
    query = [("t", "a"), *(("networkmode", g) for g in given), ("t", "b")]
    found = with_network(query)
    assert [v for k, v in found if k == "networkmode"] == [asked]
    assert [v for k, v in found if k == "t"] == ["a", "b"]


def number(field: int, value: int) -> bytes:
    return bytes([field << 3]) + varint(value)


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def text(field: int, value: bytes) -> bytes:
    return bytes([field << 3 | 2]) + varint(len(value)) + value


def stamp(field: int, seconds: int, nanos: int = 0) -> bytes:
    return text(field, number(1, seconds) + number(2, nanos))


def told(*messages: bytes) -> str:
    out = io.StringIO()
    progress = Progress(out)
    for message in messages:
        progress.trace(base64.b64encode(message).decode())
    return out.getvalue()


STEP = text(1, b"sha256:a") + text(3, b"[2/2] RUN make")


def test_a_step_is_told_with_its_output() -> None:
    def log(when: int, said: bytes) -> bytes:
        return text(3, text(1, b"sha256:a") + stamp(2, when) + number(3, 1) + text(4, said))

    part = text(2, text(1, b"exporting layers") + text(2, b"sha256:a") + stamp(8, 12))
    found = told(text(1, STEP), text(1, STEP + stamp(5, 10)), log(11, b"one\ntw"), log(12, b"o\nlast"), part, part,
                 text(1, STEP + stamp(5, 10) + stamp(6, 13, 500_000_000)))  # fmt: skip
    assert found == ("#1 [2/2] RUN make\n#1 1.000 one\n#1 2.000 two\n#1 exporting layers done\n"
                     "#1 last\n#1 DONE 3.5s\n\n")  # fmt: skip


def test_a_step_may_say_that_the_disk_is_full() -> None:
    progress = Progress(io.StringIO())
    for line in (b"begun\n", b"dd: error writing '/x': No space left on device\n"):
        assert not progress.full
        progress.trace(base64.b64encode(text(3, text(1, b"sha256:a") + text(4, line))).decode())
    assert progress.full and not progress.foreign


def test_a_step_may_be_for_another_processor() -> None:
    """What starts it writes no end of a line."""
    progress = Progress(io.StringIO())
    step = text(1, b"sha256:a") + text(3, b"RUN make")
    for message in (
        text(1, step + stamp(5, 10)),
        text(3, text(1, b"sha256:a") + text(4, b"exec /bin/sh: exec format error")),
        text(1, step + stamp(5, 10) + stamp(6, 11) + text(7, b"exit code: 255")),
    ):
        assert not progress.foreign
        progress.trace(base64.b64encode(message).decode())
    assert progress.foreign and not progress.full
    failure = build_command._failure("exit code: 255", BuildContext({}, None), progress)
    assert "the builder runs those of its own host only" in str(failure.hint)


def test_a_step_may_fail_or_be_cached() -> None:
    assert "#1 CACHED" in told(text(1, STEP + number(4, 1) + stamp(5, 1) + stamp(6, 1)))
    assert "#1 ERROR: exit code: 7" in told(text(1, STEP + stamp(5, 1) + stamp(6, 1) + text(7, b"exit code: 7")))


@pytest.mark.parametrize("data", [b"\x0a", b"\x0a\x05ab", b"\x80", b"\x0b", b"\x80" * 12, b"\x09\x00"])
def test_a_message_that_is_none_is_told(data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        decoded(data)


@pytest.mark.parametrize("before", [b"\x1ab", b"\x1a0", b"\x1a\x05"])
def test_a_length_before_a_dockerfile_may_be_a_letter(before: bytes) -> None:
    """As in a session's messages, whose bytes stand before the text."""
    assert NameFinder().feed(before + b"FROM ours:1\n") == ["ours:1"]


def test_a_secret_that_is_missing_is_told_before_hyperd_is_asked(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_command, "client", lambda: pytest.fail("hyperd was asked"))
    with pytest.raises(NotFound, match="cannot read the secret"):
        build_command.build.main(["--secret", "id=key,src=/nosuch/key", str(tree)], standalone_mode=False)


def test_an_error_of_syntax_is_shown_with_its_lines() -> None:
    text = "FROM busybox\n\nFRM x\nRUN y\nRUN z\nRUN not shown\n"
    assert (
        excerpt("dockerfile parse error on line 3: unknown instruction: FRM", text, "app.Dockerfile")
        == """\
app.Dockerfile:3
--------------------
   1 |     FROM busybox
   2 |
   3 | >>> FRM x
   4 |     RUN y
   5 |     RUN z
--------------------"""
    )
    assert excerpt("dockerfile parse error line 1: no", "FRM", "Dockerfile").splitlines()[2] == "   1 | >>> FRM"
    assert excerpt("dockerfile parse error on line 9: no", text, "Dockerfile") == ""
    assert excerpt("exit code: 3", text, "Dockerfile") == excerpt("parse error line 1", "", "Dockerfile") == ""


class Seen(io.StringIO):
    """stderr, which tells when something is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def write(self, text: str) -> int:
        self.written.set()
        return super().write(text)


def test_a_wait_for_the_builder_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buildprogress, "_PATIENCE", 0.0)
    monkeypatch.setattr(sys, "stderr", seen := Seen())
    with waiting(quiet=False):
        assert seen.written.wait(60)
    assert "waiting for the builder" in seen.getvalue()


def test_a_builder_that_answers_is_not_spoken_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", seen := Seen())
    monkeypatch.setattr(buildprogress, "_PATIENCE", 60.0)
    before = threading.active_count()
    with waiting(quiet=False) as answered:
        answered()
    with waiting(quiet=True):
        pass
    assert seen.getvalue() == "" and threading.active_count() <= before + 1
