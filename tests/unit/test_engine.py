# SPDX-License-Identifier: Apache-2.0
"""The engine's parts that need no VM."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercontainer.engine import logs, resolve
from hypercontainer.engine.log_read import LogReader
from hypercontainer.engine.registry import Registry
from hypercontainer.engine.streams import FanOut
from hypercontainer.errors import Conflict, InvalidArgument, NotFound, Unavailable
from hypercontainer.model.specs import ContainerSpec, Resources, Ulimit
from hypercontainer.model.status import Container, Process
from hypercontainer.network import names, usermode
from hypercontainer.state.database import Database

CONFIG = {
    "Entrypoint": ["/entry"],
    "Cmd": ["default"],
    "Env": ["A=image", "PATH=/image"],
    "WorkingDir": "/srv",
    "User": "app",
    "StopSignal": "SIGQUIT",
}


def spec(**how: object) -> ContainerSpec:
    return ContainerSpec(image="x", **how)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "args"),
    [
        (spec(), ["/entry", "default"]),
        (spec(command=["mine"]), ["/entry", "mine"]),
        (spec(entrypoint=["/other"]), ["/other"]),
        (spec(entrypoint=["/other"], command=["a"]), ["/other", "a"]),
        (spec(entrypoint=[""], command=["sh"]), ["sh"]),
    ],
)
def test_entrypoint_and_command(request_: ContainerSpec, args: list[str]) -> None:
    assert resolve.process_of(request_, CONFIG, "h").args == args


def test_environment_and_defaults() -> None:
    process = resolve.process_of(spec(env=["A=mine", "B="], tty=True), CONFIG, "host")
    assert process.env == ["PATH=/image", "HOSTNAME=host", "TERM=xterm", "A=mine", "B="]
    assert (process.cwd, process.user, process.stop_signal) == ("/srv", "app", 3)
    plain = resolve.process_of(spec(command=["x"]), {}, "host")
    assert (plain.cwd, plain.user, plain.stop_signal) == ("/", "", 15)


def test_no_command_at_all() -> None:
    with pytest.raises(InvalidArgument, match="no command specified"):
        resolve.process_of(spec(), {}, "h")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (spec(resources=Resources(memory=1 << 20)), "memory limit 1MiB is too small"),
        (spec(resources=Resources(memory=1 << 60)), "more than this host's"),
        (spec(resources=Resources(cpus=9999)), "more than this host's"),
        (spec(resources=Resources(cpus=0.001)), "too few"),
        (spec(hostname="a b"), "invalid host name"),
        (spec(hostname="x" * 64), "invalid host name"),
        (spec(env=["=x"]), "invalid environment"),
        (spec(ulimits=[Ulimit(name="fly", soft=1, hard=1)]), "unknown ulimit"),
        (spec(ulimits=[Ulimit(name="nofile", soft=5, hard=1)]), "above hard limit"),
        (spec(sysctls={"../x": "1"}), "invalid sysctl"),
        (spec(workdir="relative"), "not absolute"),
        (spec(cap_add=["FLY"]), "unknown capability"),
        (spec(stop_signal="NOPE"), "invalid signal"),
    ],
)
def test_refused_requests(bad: ContainerSpec, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        resolve.validate(bad)


def test_machine_sizes() -> None:
    assert resolve.machine_size([spec()]) == (1, resolve.MEMORY_DEFAULT)
    assert resolve.machine_size([spec(resources=Resources(cpus=1.5, memory=64 << 20))]) == (
        2,
        (64 << 20) + resolve.GUEST_OVERHEAD,
    )


# -- logs -------------------------------------------------------------------------------


def writer(tmp_path: Path, **limits: int) -> logs.OutputLog:
    options = {"max_size": 1 << 20, "max_files": 3, **limits}
    made = logs.json_log(tmp_path / "container.log", **options)  # type: ignore[arg-type]
    made.begin()
    return made


def test_whole_lines_are_logged_and_counted(tmp_path: Path) -> None:
    log = writer(tmp_path)
    assert log.write(1, b"one\ntw") == 4
    assert log.write(2, b"err\n") == 4
    assert log.write(1, b"o\n") == 4
    assert [(r.stream, r.log) for r in logs.read(tmp_path / "container.log")] == [
        ("stdout", "one\n"),
        ("stderr", "err\n"),
        ("stdout", "two\n"),
    ]
    assert log.offsets == (8, 4)
    assert log.write(1, b"rest") == 0 and log.flush(1) == 4
    assert logs.read(tmp_path / "container.log")[-1].log == "rest"
    log.close()


def test_long_lines_are_split_and_bytes_stay_countable(tmp_path: Path) -> None:
    log = writer(tmp_path)
    assert log.write(1, b"x" * 40_000) == 32768
    assert log.flush(1) == 40_000 - 32768
    assert "".join(r.log for r in logs.read(tmp_path / "container.log")) == "x" * 40_000
    assert log.write(1, b"\xff\xfe\n") == 3
    assert log.offsets == (40_003, 0)
    log.close()


def test_rotation_keeps_the_newest(tmp_path: Path) -> None:
    log = writer(tmp_path, max_size=1000, max_files=2)
    for n in range(100):
        log.write(1, b"line %d\n" % n)
    assert sorted(p.name for p in tmp_path.glob("container.log*")) == ["container.log", "container.log.1"]
    lines = [r.log for r in logs.read(tmp_path / "container.log")]
    assert lines[-1] == "line 99\n" and 5 < len(lines) < 100
    assert [r.log for r in logs.read(tmp_path / "container.log", tail=2)] == ["line 98\n", "line 99\n"]
    assert logs.read(tmp_path / "container.log", tail=0) == []
    log.close()


def test_follower_crosses_rotations(tmp_path: Path) -> None:
    log = writer(tmp_path, max_size=500, max_files=3)
    log.write(1, b"before\n")
    follower = LogReader(tmp_path / "container.log", at_end=True)
    seen = []
    for n in range(30):
        log.write(1, b"line %d\n" % n)
        while (records := follower.read()) is not None or follower.turn():
            seen += [r.log for r in records or []]
    assert seen == [f"line {n}\n" for n in range(30)]
    follower.close()
    log.close()


def test_torn_line_of_a_crash_is_skipped(tmp_path: Path) -> None:
    log = writer(tmp_path)
    log.write(1, b"good\n")
    log.close()
    with open(tmp_path / "container.log", "ab") as f:
        f.write(b'{"log":"\xff"}\n{"log":"to')
    assert [r.log for r in logs.read(tmp_path / "container.log")] == ["good\n"]


def test_offsets_survive_the_daemon(tmp_path: Path) -> None:
    log = writer(tmp_path)
    log.write(1, b"12345\n")
    log.close()
    again = logs.json_log(tmp_path / "container.log", max_size=1000, max_files=2)
    assert again.begin(resume=True) == (6, 0)
    again.close()


async def test_slow_reader_holds_acknowledgements_back() -> None:
    fan_out = FanOut()
    fan_out.begin()
    reader = fan_out.attach()
    assert fan_out.write(1, bytes(1 << 20)) == 1 << 20
    assert fan_out.write(1, b"more") == 0
    reader.close()
    assert fan_out.write(1, b"free again") == len(b"free again")


async def test_readers_end_with_the_output() -> None:
    fan_out = FanOut()
    fan_out.begin()
    reader = fan_out.attach()
    fan_out.write(1, b"out")
    fan_out.write(2, b"err")
    fan_out.end(1)
    fan_out.end(2)
    assert [item async for item in reader] == [(1, b"out"), (2, b"err")]


# -- registry and database ----------------------------------------------------------------


def container(id_: str, name: str) -> Container:
    process = Process(args=["x"], env=[], cwd="/", user="", stop_signal=15)
    return Container(
        id=id_,
        name=name,
        pod=id_,
        created_at="2026",
        image="x",
        image_id="sha256:1",
        hostname="h",
        process=process,
        spec=spec(),
    )


def test_containers_are_found_by_name_id_and_prefix(tmp_path: Path) -> None:
    registry = Registry(Database(tmp_path / "state.db"))
    registry.put(container("abc1" + "0" * 60, "web"))
    registry.put(container("abd2" + "0" * 60, "db"))
    assert registry.container("web").id.startswith("abc1")
    assert registry.container("abd").name == "db"
    with pytest.raises(InvalidArgument, match="ambiguous"):
        registry.container("ab")
    with pytest.raises(NotFound, match="no such container: none"):
        registry.container("none")
    with pytest.raises(Conflict, match="is taken by container abc1"):
        registry.reserve("web")
    with pytest.raises(InvalidArgument, match="invalid container name"):
        registry.reserve("-x")
    assert registry.reserve("new") == "new"
    with pytest.raises(Conflict, match="about to be taken"):
        registry.reserve("new")
    assert registry.in_use() == {"sha256:1": ["web", "db"]}


def test_database_survives_and_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    first = Database(path)
    first.put_container(container("a", "web"))
    first.close()
    again = Database(path)
    assert [c.name for c in again.containers()] == ["web"]
    again.remove_container("a")
    assert again.containers() == []
    again._db.execute("PRAGMA user_version=99")
    again.close()
    with pytest.raises(Unavailable, match="written by a newer hyperd"):
        Database(path)
    path.write_bytes(b"not a database at all, but long enough to be read as one" * 50)
    with pytest.raises(Unavailable, match="cannot open the state database"):
        Database(path)


# -- network ------------------------------------------------------------------------------


def test_resolver_and_hosts(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 192.0.2.1\nsearch a.example\noptions ndots:2\n")
    default = usermode.NAMESERVER
    assert names.resolv_conf([default], [], [], conf) == b"nameserver 10.0.2.3\nsearch a.example\noptions ndots:2\n"
    assert names.resolv_conf([default], [], [], tmp_path / "none") == b"nameserver 10.0.2.3\n"
    given = names.resolv_conf(["192.0.2.9", "192.0.2.8"], ["b.example"], ["rotate"], conf)
    assert given == b"nameserver 192.0.2.9\nnameserver 192.0.2.8\nsearch b.example\noptions rotate\n"
    hosts = names.hosts_file("web", usermode.ADDRESS, ["db", "web"], [("192.0.2.1", ["far", "away"])])
    full = names.hosts_file("web", usermode.ADDRESS, [], [], "example.org")
    assert b"10.0.2.15\tweb.example.org\tweb\n" in full
    assert b"10.0.2.15\tweb\n" in hosts and b"127.0.0.1\tdb\n" in hosts and b"192.0.2.1\tfar away\n" in hosts


def test_records_are_docker_json_lines(tmp_path: Path) -> None:
    log = writer(tmp_path)
    log.write(2, b'quote " and \xe2\x82\xac\n')
    record = json.loads((tmp_path / "container.log").read_bytes())
    assert record["log"] == 'quote " and €\n' and record["stream"] == "stderr" and record["time"].endswith("Z")
    log.close()


@given(
    st.lists(
        st.text(alphabet=st.characters(exclude_characters="\n", exclude_categories=("Cs",)))
        | st.sampled_from(["\\n", "\\", '"', "a\\\\n", '{"log":'])
    )
)
def test_log_records_of_many_lines_at_once(lines: list[str]) -> None:
    """One encoding for all, cut in the right places: a backslash of the text's own is none of ours."""
    from hypercontainer.engine.log_sinks.files import _records_of

    tail = b',"stream":"stdout","time":"t"}\n'
    lines = [*lines, "last"]
    expected = [msgspec.json.encode({"log": f"{line}\n", "stream": "stdout", "time": "t"}) for line in lines]
    assert _records_of("".join(f"{line}\n" for line in lines), tail) == b"".join(e + b"\n" for e in expected)
