# SPDX-License-Identifier: Apache-2.0
"""Names, sizes, signals, ports: what people write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from hypercontainer.errors import InvalidArgument
from hypercontainer.model.ports import parse_publish
from hypercontainer.model.reference import Source, parse_reference, parse_source
from hypercontainer.model.signals import CAPABILITIES, DEFAULT_CAPABILITIES, capability_mask, parse_signal
from hypercontainer.model.units import format_age, format_binary, format_size, parse_size, parse_time

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("docker.io/busybox:1", "docker.io/busybox:1", "busybox:1"),
        ("user/app:v1", "docker.io/user/app:v1", "user/app:v1"),
        ("localhost:5000/nginx:test", "localhost:5000/nginx:test", "localhost:5000/nginx:test"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("ghcr.io/a/b/c@" + DIGEST, f"ghcr.io/a/b/c@{DIGEST}", f"ghcr.io/a/b/c@{DIGEST}"),
        ("x:1@" + DIGEST, f"docker.io/library/x:1@{DIGEST}", f"x:1@{DIGEST}"),
        ("index.docker.io/a/b", "docker.io/a/b:latest", "a/b:latest"),
        ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
    ],
)
def test_references(text: str, full: str, familiar: str) -> None:
    assert parse_reference(text).full == full
    assert parse_reference(text).familiar == familiar


@pytest.mark.parametrize(
    "text", ["", "UPPER", "a//b", "x:", "x:bad tag", "x@sha256:12", "-x", "a/", "x@md5:1", "host.com/"]
)
def test_bad_references(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid image reference"):
        parse_reference(text)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("busybox", Source("docker", "docker.io/library/busybox:latest")),
        ("docker://a/b:1", Source("docker", "docker.io/a/b:1")),
        ("docker-archive:/x.tar", Source("docker-archive", "/x.tar")),
        ("oci:/dir:tag", Source("oci", "/dir:tag")),
        ("oci-archive:/x.tar", Source("oci-archive", "/x.tar")),
        ("docker-daemon:x:1", Source("docker-daemon", "x:1")),
        ("builtin:busybox", Source("builtin", "busybox")),
    ],
)
def test_sources(text: str, source: Source) -> None:
    assert parse_source(text) == source


@pytest.mark.parametrize(
    ("text", "size"),
    [("64m", 64 << 20), ("1.5G", 3 << 29), ("1048576", 1 << 20), ("10k", 10240), ("2gb", 2 << 30), ("1MiB", 1 << 20)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-5m", "5 parsecs", "1e9", "m"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid size"):
        parse_size(text)


def test_formatted_sizes() -> None:
    assert (format_size(0), format_size(1990656), format_binary(16 << 20)) == ("0B", "1.99MB", "16MiB")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (61, "About a minute"), (600, "10 minutes"),
     (3700, "About an hour"), (7300, "2 hours"), (200_000, "2 days"), (70_000_000, "2 years")],
)  # fmt: skip
def test_ages(seconds: float, text: str) -> None:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    assert format_age((now - timedelta(seconds=seconds)).isoformat(), now) == text


def test_times() -> None:
    assert parse_time("2026-01-31T12:00:00Z") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert parse_time("1700000000") == datetime.fromtimestamp(1_700_000_000, UTC)
    assert abs(parse_time("1h30m") - (datetime.now(UTC) - timedelta(minutes=90))) < timedelta(seconds=5)
    with pytest.raises(InvalidArgument, match="invalid time"):
        parse_time("yesterday")


@pytest.mark.parametrize(
    ("text", "number"), [("9", 9), ("KILL", 9), ("SIGKILL", 9), ("sigterm", 15), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)]
)
def test_signals(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["0", "65", "NOPE", "", "SIGRTMIN+99", "-1"])
def test_bad_signals(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid signal"):
        parse_signal(text)


def _names(mask: int) -> set[str]:
    return {name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1}


def test_capabilities() -> None:
    assert _names(capability_mask([], [])) == set(DEFAULT_CAPABILITIES)
    assert capability_mask([], []) == 0xA80425FB  # what Docker gives
    assert _names(capability_mask(["NET_ADMIN"], ["cap_chown"])) == set(DEFAULT_CAPABILITIES) - {"CHOWN"} | {
        "NET_ADMIN"
    }
    assert _names(capability_mask(["ALL"], [])) == set(CAPABILITIES)
    assert _names(capability_mask(["KILL"], ["ALL"])) == {"KILL"}
    with pytest.raises(InvalidArgument, match="unknown capability"):
        capability_mask(["FLY"], [])


def _ports(spec: str) -> list[tuple[str, int, int, str]]:
    return [(p.host_ip, p.host_port, p.container_port, p.protocol) for p in parse_publish(spec)]


@pytest.mark.parametrize(
    ("spec", "ports"),
    [
        ("80", [("", 0, 80, "tcp")]),
        ("8080:80", [("", 8080, 80, "tcp")]),
        ("53:53/udp", [("", 53, 53, "udp")]),
        ("127.0.0.1:8080:80", [("127.0.0.1", 8080, 80, "tcp")]),
        ("127.0.0.1::80", [("127.0.0.1", 0, 80, "tcp")]),
        ("[::1]:8080:80/Udp", [("::1", 8080, 80, "udp")]),
        ("[fd00::1]::80", [("fd00::1", 0, 80, "tcp")]),
        ("8000-8002:80-82", [("", 8000, 80, "tcp"), ("", 8001, 81, "tcp"), ("", 8002, 82, "tcp")]),
    ],
)
def test_published_ports(spec: str, ports: list[tuple[str, int, int, str]]) -> None:
    assert _ports(spec) == ports


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "x",
        "70000:80",
        "80:70000",
        "1-3:1-2",
        "80/sctp",
        "[::1%lo]:1:1",
        "[]:1:1:1",
        "1.2.3:80:80",
        "5-3:5-3",
        "a:b:c:d",
    ],
)
def test_bad_published_ports(spec: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_publish(spec)


def test_templates() -> None:
    from hypercontainer.hyperctl.output import render

    value = {"name": "web", "state": {"exitCode": 7}, "labels": {"a": "{{b}}"}}
    assert render("{{.Name}} {{ .State.ExitCode }}", value) == "web 7"
    assert render("table {{.Name}}\\t{{json .Labels}}", value) == 'web\t{"a":"{{b}}"}'
    with pytest.raises(InvalidArgument, match="no field 'Colour'"):
        render("{{.Colour}}", value)
    with pytest.raises(InvalidArgument, match="not understood"):
        render("{{range .Labels}}", value)
