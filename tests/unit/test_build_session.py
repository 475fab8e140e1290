# SPDX-License-Identifier: Apache-2.0
"""What the builder may ask of `hyperctl build`, asked over a real HTTP/2 connection by the library's client side."""

from __future__ import annotations

import io
import os
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from hypercontainer.errors import HyperError, InvalidArgument, NotFound
from hypercontainer.hyperctl import buildoutput
from hypercontainer.hyperctl.buildoutput import Output, cache_sources, cache_target, parse_output
from hypercontainer.hyperctl.session import outputs, secrets
from hypercontainer.hyperctl.session.grpc import Handler, Server
from hypercontainer.model.protobuf import decoded, encoded, raw, text, whole

GET_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
DIRECTORY, SYMLINK = 1 << 31, 1 << 27  # of Go's FileMode
STAT, _, DATA, FIN = range(4)  # kinds of packets


class Asking:
    """The builder's side: one call on a connection of its own."""

    def __init__(self, handlers: dict[str, Handler]) -> None:
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(20)
        self._theirs = theirs
        self.server = Server(theirs, handlers)
        self._thread = threading.Thread(target=self.server.run)
        self._thread.start()
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.http.initiate_connection()
        self.status: dict[str, str] = {}
        self._data = b""
        self._over = False

    def close(self) -> None:
        self.sock.close()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._theirs.close()

    def begin(self, path: str, *metadata: tuple[str, str]) -> None:
        head = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"), *metadata]
        self.http.send_headers(1, head)

    def send(self, message: bytes, *, last: bool = False) -> None:
        data = struct.pack(">BI", 0, len(message)) + message
        while data:
            while not (room := min(self.http.local_flow_control_window(1), self.http.max_outbound_frame_size)):
                self._receive()
            self.http.send_data(1, data[:room])
            data = data[room:]
        if last:
            self.http.end_stream(1)

    def _receive(self) -> None:
        self.sock.sendall(self.http.data_to_send())
        received = self.sock.recv(1 << 16)
        assert received, "the session ended"
        for event in self.http.receive_data(received):
            if isinstance(event, h2.events.DataReceived):
                self._data += event.data
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                self.status |= {str(k): str(v) for k, v in event.headers}
            self._over |= isinstance(event, h2.events.StreamEnded)
        self.sock.sendall(self.http.data_to_send())

    def message(self) -> bytes | None:
        """The next of the answer; None when there is no more."""
        while True:
            if len(self._data) >= 5 and len(self._data) >= 5 + (size := struct.unpack(">I", self._data[1:5])[0]):
                found, self._data = self._data[5 : 5 + size], self._data[5 + size :]
                return found
            if self._over:
                return None
            self._receive()

    def asked(self, path: str, message: bytes) -> bytes | None:
        """A call of one message each way."""
        self.begin(path)
        self.send(message, last=True)
        found = self.message()
        assert self.message() is None
        return found


@pytest.fixture
def asking() -> Iterator[Callable[[dict[str, Handler]], Asking]]:
    made: list[Asking] = []

    def begun(handlers: dict[str, Handler]) -> Asking:
        made.append(Asking(handlers))
        return made[-1]

    yield begun
    for each in made:
        each.close()


Begun = Callable[[dict[str, Handler]], Asking]


def test_a_secret_is_given_by_its_name(asking: Begun) -> None:
    large = os.urandom(300 << 10)  # more than a window of HTTP/2
    found = asking(secrets.services({"one": large}, {})).asked(GET_SECRET, encoded({1: "one"}))
    assert found is not None and raw(decoded(found), 1) == large


def test_a_secret_that_there_is_not(asking: Begun) -> None:
    caller = asking(secrets.services({"one": b"1"}, {}))
    assert caller.asked(GET_SECRET, encoded({1: "two"})) is None
    assert caller.status["grpc-status"] == "5" and "two" in caller.status["grpc-message"]


def test_what_nobody_answers_is_unimplemented(asking: Begun) -> None:
    caller = asking(secrets.services({}, {}))
    assert caller.asked(GET_SECRET, encoded({1: "one"})) is None
    assert (caller.status[":status"], caller.status["grpc-status"]) == ("200", "12")


def test_the_session_says_that_it_is_well(asking: Begun) -> None:
    found = asking(secrets.services({}, {})).asked("/grpc.health.v1.Health/Check", b"")
    assert found is not None and whole(decoded(found), 1) == 1


def test_credentials_are_those_of_the_login_file(
    asking: Begun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auths = '{"example.org": {"auth": "bWU6c2VjcmV0"}, "example.com": {"auth": "bWU6", "identitytoken": "long"}}'
    (tmp_path / "config.json").write_text(f'{{"auths": {auths}}}')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for host, user, secret in (("example.org", "me", "secret"), ("example.com", "", "long")):
        found = asking(secrets.services({}, {})).asked("/moby.filesync.v1.Auth/Credentials", encoded({1: host}))
        assert found is not None and (text(decoded(found), 1), text(decoded(found), 2)) == (user, secret)


def test_an_agent_is_reached_through_the_session(asking: Begun, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "agent"))
        listening.listen()
        given = secrets.agents([f"default={tmp_path / 'agent'}"])
        caller = asking(secrets.services({}, given))
        caller.begin("/moby.sshforward.v1.SSH/ForwardAgent", ("buildkit.ssh.id", "default"))
        caller.send(encoded({1: b"question"}))
        caller.sock.sendall(caller.http.data_to_send())
        agent, _ = listening.accept()
        with agent:
            assert agent.recv(100) == b"question"
            agent.sendall(b"answer")
            answer = caller.message()
            assert answer is not None and raw(decoded(answer), 1) == b"answer"
            caller.http.end_stream(1)
            caller.sock.sendall(caller.http.data_to_send())
            assert agent.recv(100) == b""
        assert caller.message() is None and caller.status["grpc-status"] == "0"


@pytest.mark.parametrize(("option", "value"), [
    ("id=a,src={path}", b"of a file"), ("id=a,env=A_SECRET", b"of a variable"), ("id=A_SECRET", b"of a variable"),
    ("type=env,id=a,src=A_SECRET", b"of a variable"), ("type=file,id=a,source={path}", b"of a file"),
])  # fmt: skip
def test_where_a_secret_is(option: str, value: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_bytes(b"of a file")
    monkeypatch.setenv("A_SECRET", "of a variable")
    assert list(secrets.secret_values([option.format(path=tmp_path / "secret")]).values()) == [value]


@pytest.mark.parametrize(("option", "error"), [
    ("src=/x", InvalidArgument), ("id=a,src=/not/there", NotFound), ("id=a,env=NOT_THERE", NotFound),
    ("id=a,nonsense", InvalidArgument), ("id=a,type=other", InvalidArgument),
])  # fmt: skip
def test_a_secret_that_cannot_be_given(option: str, error: type[HyperError]) -> None:
    with pytest.raises(error):
        secrets.secret_values([option])


# -- outputs -------------------------------------------------------------------------------


def described(path: str, mode: int, target: str = "") -> bytes:
    return encoded({1: STAT, 2: encoded({1: path, 2: mode, 6: 1_500_000_000_123_456_789, 7: target})})


def sent(asking: Begun, root: Path, files: dict[bytes, bytes]) -> Asking:
    """A tree as the builder sends it; the values are the contents of what is asked for."""
    caller = asking({outputs.PATH: outputs.to_directory(root)})
    caller.begin(outputs.PATH)
    for packet in [*files, encoded({1: STAT})]:
        caller.send(packet)
    contents = list(files.values())
    while (message := caller.message()) is not None:
        asked = decoded(message)
        if whole(asked, 1) == FIN:
            caller.send(encoded({1: FIN}), last=True)
            continue
        number = whole(asked, 3)
        for data in (contents[number], b""):
            caller.send(encoded({1: DATA, 3: number, 4: data}))
    return caller


def test_a_tree_is_written_as_it_comes(asking: Begun, tmp_path: Path) -> None:
    root = tmp_path / "new/out"
    caller = sent(asking, root, {
        described("bin", DIRECTORY | 0o555): b"",
        described("bin/program", 1 << 23 | 0o755): b"program" * 30000,
        described("bin/same", 0o755, "bin/program"): b"",
        described("name", SYMLINK | 0o777, "/etc/passwd"): b"",
    })  # fmt: skip
    assert caller.status["grpc-status"] == "0"
    program = root / "bin/program"
    assert program.read_bytes() == b"program" * 30000
    assert stat.S_IMODE(program.stat().st_mode) == 0o4755 and program.stat().st_mtime_ns == 1_500_000_000_123_456_789
    assert (root / "bin/same").samefile(program)
    assert os.readlink(root / "name") == "/etc/passwd"
    assert stat.S_IMODE((root / "bin").stat().st_mode) == 0o555
    (root / "bin").chmod(0o755)


@pytest.mark.parametrize("path", ["../out", "/out", "a/../../out", "link/out", ".", "", "a//b"])
def test_nothing_is_written_outside_of_the_directory(asking: Begun, tmp_path: Path, path: str) -> None:
    root = tmp_path / "in"
    caller = asking({outputs.PATH: outputs.to_directory(root)})
    caller.begin(outputs.PATH)
    caller.send(described("link", SYMLINK | 0o777, str(tmp_path)))
    caller.send(described(path, 0o644) if path else encoded({1: STAT, 2: encoded({2: 0o644})}))
    caller.send(encoded({1: STAT}))
    while (message := caller.message()) is not None:  # it may ask for the file before it finds that it has no place
        caller.send(encoded({1: DATA, 3: whole(decoded(message), 3), 4: b"x"}))
    assert caller.status["grpc-status"] != "0"
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_what_is_there_already_gives_way_and_links_are_not_followed(asking: Begun, tmp_path: Path) -> None:
    root, other = tmp_path / "in", tmp_path / "other"
    root.mkdir()
    other.write_text("other")
    (root / "file").symlink_to(other)
    (root / "more").write_text("more")
    assert sent(asking, root, {described("file", 0o644): b"new"}).status["grpc-status"] == "0"
    assert ((root / "file").read_text(), other.read_text(), (root / "more").read_text()) == ("new", "other", "more")


def test_a_tar_goes_to_a_file(asking: Begun) -> None:
    out = io.BytesIO()
    caller = asking({outputs.PATH: outputs.to_file(out, "out.tar")})
    caller.begin(outputs.PATH)
    data = os.urandom(3 << 20)
    caller.send(encoded({1: data}))
    caller.send(encoded({1: b"end"}), last=True)
    assert caller.message() is None and caller.status["grpc-status"] == "0"
    assert out.getvalue() == data + b"end"


def test_a_full_disk_of_ours_is_no_fault_of_the_builders(asking: Begun) -> None:
    with open("/dev/full", "wb", buffering=0) as out:
        caller = asking({outputs.PATH: outputs.to_file(out, "out.tar")})
        caller.begin(outputs.PATH)
        caller.send(encoded({1: b"x" * 100_000}), last=True)
        assert caller.message() is None and caller.status["grpc-status"] == "2"
        assert str(caller.server.failed) == "cannot write out.tar: No space left on device"


@pytest.mark.parametrize(("given", "push", "expected"), [
    ([], False, Output()), (["dir"], False, Output("local", "dir")), (["-"], False, Output("tar", "-")),
    (["type=tar,dest=a.tar"], False, Output("tar", "a.tar")), (["type=docker"], False, Output("docker")),
    (["type=oci,dest=a"], False, Output("oci", "a")), (["type=registry"], False, Output("image", "", True)),
    (["type=image,push=true"], False, Output("image", "", True)), ([], True, Output(push=True)),
])  # fmt: skip
def test_where_the_result_goes(given: list[str], push: bool, expected: Output) -> None:
    assert parse_output(given, push=push) == expected


@pytest.mark.parametrize("given", [
    ["a", "b"], ["type=oci"], ["type=other,dest=a"], ["type=local,dest=-"], ["type=image,dest=a"], ["type=tar,x"],
])  # fmt: skip
def test_an_output_that_there_is_not(given: list[str]) -> None:
    with pytest.raises(InvalidArgument):
        parse_output(given, push=False)


def test_a_file_is_there_only_when_it_is_whole(tmp_path: Path) -> None:
    with pytest.raises(NotFound), buildoutput.written(str(tmp_path / "out")) as out:
        out.write(b"half")
        raise NotFound("the rest")
    assert list(tmp_path.iterdir()) == []


def test_caches() -> None:
    assert cache_sources(["a:1", "type=registry,ref=b:2"]) == ["a:1", "b:2"]
    assert (cache_target([]), cache_target(["type=inline"]), cache_target(["inline"])) == (False, True, True)
    with pytest.raises(InvalidArgument):
        cache_sources(["type=local,src=/x"])
    with pytest.raises(InvalidArgument, match="inline"):
        cache_target(["type=local,dest=/x"])
