# SPDX-License-Identifier: Apache-2.0
"""Flags and columns of published ports, and lines of /etc/hosts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hypercontainer.errors import InvalidArgument
from hypercontainer.hyperctl.listing import describe_ports
from hypercontainer.hyperctl.netoptions import _host_entry
from hypercontainer.model.ports import parse_publish


@pytest.mark.parametrize(
    ("published", "column"),
    [
        (["8080:80"], "0.0.0.0:8080->80/tcp"),
        (["8000-8002:80-82"], "0.0.0.0:8000-8002->80-82/tcp"),
        (["8002:82", "8000:80", "8001:81", "9:9/udp"], "0.0.0.0:8000-8002->80-82/tcp, 0.0.0.0:9->9/udp"),
        (["8000:80", "8001:80"], "0.0.0.0:8000->80/tcp, 0.0.0.0:8001->80/tcp"),
        (
            ["8000:80", "127.0.0.1:8001:81", "[::1]:8001:81"],
            "0.0.0.0:8000->80/tcp, 127.0.0.1:8001->81/tcp, [::1]:8001->81/tcp",
        ),
        ([], ""),
    ],
)
def test_ports_in_a_column(published: list[str], column: str) -> None:
    container: Any = SimpleNamespace(ports=[p for text in published for p in parse_publish(text)])
    assert describe_ports(container) == column


@pytest.mark.parametrize(
    ("text", "ip", "name"),
    [("a:10.0.0.1", "10.0.0.1", "a"), ("a=10.0.0.1", "10.0.0.1", "a"),
     ("a:fd00::1", "fd00::1", "a"), ("a=[fd00::1]", "fd00::1", "a"),
     ("host.docker.internal:host-gateway", "host-gateway", "host.docker.internal")],
)  # fmt: skip
def test_lines_of_hosts(text: str, ip: str, name: str) -> None:
    entry = _host_entry(text)
    assert (entry.ip, entry.names) == (ip, [name])


@pytest.mark.parametrize("text", ["a", "a:", ":10.0.0.1", "=x", "a:nowhere", "a=gateway", ""])
def test_bad_lines_of_hosts(text: str) -> None:
    with pytest.raises(InvalidArgument):
        _host_entry(text)
