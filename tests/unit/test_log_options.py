# SPDX-License-Identifier: Apache-2.0
"""`--log-driver` and `--log-opt`, and times of logs to the nanosecond."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hypercontainer.engine import logs
from hypercontainer.engine.log_sinks import choose, journald, syslog
from hypercontainer.errors import HyperError, InvalidArgument, Unsupported
from hypercontainer.hyperd.config import load
from hypercontainer.model.log_options import (
    facility,
    keeps_no_copy,
    read_log_options,
    syslog_address,
    with_defaults,
    write_tag,
)
from hypercontainer.model.specs import LogOptions


def test_options_of_each_driver() -> None:
    assert read_log_options("", {}) == LogOptions()
    assert read_log_options("json-file", {"max-size": "1k", "max-file": "3"}) == LogOptions(
        driver="json-file", max_size=1024, max_files=3
    )
    sent = read_log_options("syslog", {"cache-max-size": "2m", "cache-max-file": "2", "tag": "{{.Name}}"}, path="/x")
    assert sent == LogOptions(driver="syslog", max_size=2 << 20, max_files=2, path="/x", options={"tag": "{{.Name}}"})
    assert not keeps_no_copy(sent) and keeps_no_copy(read_log_options("journald", {"cache-disabled": "true"}))
    assert keeps_no_copy(LogOptions(driver="none"))


@pytest.mark.parametrize(
    ("driver", "given", "says"),
    [
        ("gelf", {}, "unknown log driver 'gelf'"),
        ("json-file", {"tag": "x"}, "unknown log option 'tag' for json-file"),
        ("", {"colour": "x"}, "unknown log option 'colour'"),
        ("journald", {"max-size": "1m"}, "unknown log option 'max-size' for journald"),
        ("syslog", {"syslog-format": "rfc1"}, "invalid syslog-format 'rfc1'"),
        ("syslog", {"syslog-facility": "local9"}, "invalid syslog-facility 'local9'"),
        ("syslog", {"syslog-facility": ""}, "invalid syslog-facility ''"),
        ("syslog", {"syslog-facility": "24"}, "invalid syslog-facility '24'"),
        ("syslog", {"tag": "{{.Colour}}"}, "tag: there is no field 'Colour'"),
        ("syslog", {"cache-disabled": "maybe"}, "invalid cache-disabled 'maybe'"),
        ("syslog", {"syslog-address": "tcp+tls://x"}, "syslog over TLS is not there"),
        *(
            ("syslog", {"syslog-address": a}, f"invalid syslog-address {a!r}")
            for a in ("x", "udp://", "udp://x:99999", "udp://x/y", "unix://x/y", "http://x", "tcp://[::1")
        ),
    ],
)
def test_options_that_are_wrong(driver: str, given: dict[str, str], says: str) -> None:
    with pytest.raises(HyperError) as error:
        read_log_options(driver, given)
    assert says in str(error.value)


def test_the_daemons_defaults() -> None:
    """As Docker's daemon.json: options are of the driver that they were given for."""
    default = read_log_options("syslog", {"tag": "all", "syslog-facility": "kern", "cache-max-size": "1m"})
    assert with_defaults(LogOptions(), default) == default
    asked = read_log_options("", {"tag": "mine", "cache-max-file": "2"})
    merged = {"tag": "mine", "syslog-facility": "kern"}
    assert (
        with_defaults(asked, default)
        == LogOptions(driver="syslog", max_size=1 << 20, max_files=2, options=merged)
        == with_defaults(msgspec.structs.replace(asked, driver="syslog"), default)
    )
    other = read_log_options("journald", {"tag": "mine"})
    assert with_defaults(other, default) == other
    sinks = choose.LogSinks(1, 1, LogOptions(driver="json-file", max_files=5))
    assert sinks.resolved(read_log_options("", {"max-size": "1k"})) == LogOptions(
        driver="json-file", max_size=1024, max_files=5
    )
    with pytest.raises(InvalidArgument, match="unknown log option 'tag' for json-file"):
        sinks.resolved(read_log_options("", {"tag": "x"}))


def test_the_daemons_configuration(tmp_path: Path) -> None:
    file = tmp_path / "hyperd.toml"
    file.write_text('log_driver = "syslog"\n[log_opts]\nsyslog-address = "udp://[::1]:514"\ntag = "{{.Name}}"\n')
    assert load(file, {}).log_options == LogOptions(
        driver="syslog", options={"syslog-address": "udp://[::1]:514", "tag": "{{.Name}}"}
    )
    assert load(file, {"log_opts": {"tag": "x"}}).log_options.options == {"tag": "x"}
    for text, says in (
        ('log_driver = "gelf"', "log_driver"),
        ('[log_opts]\ntag = "x"', "unknown log option 'tag' for json-file"),
    ):
        file.write_text(text)
        with pytest.raises(InvalidArgument, match=says):
            load(file, {})


def test_what_options_mean() -> None:
    def of(**options: str) -> LogOptions:
        return LogOptions(driver="syslog", options={k.replace("_", "-"): v for k, v in options.items()})

    assert syslog_address(of()) == ("", "", 0)
    assert syslog_address(of(syslog_address="udp://[::1]:1")) == ("udp", "::1", 1)
    assert syslog_address(of(syslog_address="tcp://logs")) == ("tcp", "logs", 514)
    assert syslog_address(of(syslog_address="unixgram:///dev/log")) == ("unix", "/dev/log", 0)
    assert [facility(of(**({"syslog_facility": f} if f else {}))) for f in ("", "kern", "local7", "13")] == [
        3,
        0,
        23,
        13,
    ]
    assert write_tag("", {"ID": "0123"}) == "0123"
    assert write_tag("a/{{.Name}}/{{ .ID }}", {"ID": "0123", "Name": "box"}) == "a/box/0123"


def test_what_is_not_on_this_host_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journald, "SOCKET", tmp_path / "journal")
    monkeypatch.setattr(syslog, "LOCAL", (tmp_path / "log",))
    for options, says in (
        (LogOptions(driver="journald"), "there is no systemd-journald on this host"),
        (LogOptions(driver="syslog"), "there is no syslog on this host"),
        (LogOptions(driver="syslog", options={"syslog-address": f"unix://{tmp_path}/s"}), "there is no syslog at"),
    ):
        with pytest.raises(Unsupported, match=says):
            choose.check(options)
    (tmp_path / "journal").touch()
    (tmp_path / "log").touch()
    choose.check(LogOptions(driver="journald"))
    choose.check(LogOptions(driver="syslog"))
    choose.check(LogOptions(driver="syslog", options={"syslog-address": "udp://192.0.2.1"}))
    with pytest.raises(InvalidArgument, match="unknown log option"):
        choose.check(LogOptions(driver="json-file", options={"tag": "x"}))


def test_times_of_a_log_are_compared_to_the_nanosecond(tmp_path: Path) -> None:
    """Logs of earlier versions have six decimals, and Docker leaves zeros out."""
    path = tmp_path / "container.log"
    times = ["00:00:01Z", "00:00:01.000001Z", "00:00:01.000001001Z", "00:00:01.5Z"]
    path.write_text(
        "".join(f'{{"log":"{n}\\n","stream":"stdout","time":"2026-01-01T{t}"}}\n' for n, t in enumerate(times))
    )
    assert [r.log[0] for r in logs.read(path, since="2026-01-01T00:00:01.000001Z")] == ["1", "2", "3"]
    assert [r.log[0] for r in logs.read(path, until="2026-01-01T00:00:01.000001Z")] == ["0", "1"]
    assert [r.log[0] for r in logs.read(path, since="2026-01-01T00:00:01.000001001Z", tail=9)] == ["2", "3"]
    path.write_text("2026-01-01T00:00:01.000000001Z stdout P a\n2026-01-01T00:00:01.000000002Z stdout F b\ntorn\n")
    assert [(r.log, r.time[-4:]) for r in logs.read(path, tail=5)] == [("a", "001Z"), ("b\n", "002Z")]
