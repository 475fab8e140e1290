# SPDX-License-Identifier: Apache-2.0
"""Who gets which port of the host."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec
import pytest

from hypercontainer.engine.host_ports import HostPorts, overlap
from hypercontainer.engine.registry import Registry
from hypercontainer.errors import Conflict
from hypercontainer.model.network import Attachment
from hypercontainer.model.pods import PodSpec
from hypercontainer.model.specs import PortMapping
from hypercontainer.model.status import Pod, Vm
from hypercontainer.network.owner import port_owner
from hypercontainer.state.database import Database


def port(number: int, ip: str = "", protocol: str = "tcp") -> PortMapping:
    return PortMapping(container_port=80, host_port=number, host_ip=ip, protocol=protocol)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (port(80), port(80), True), (port(80), port(81), False), (port(80), port(80, protocol="udp"), False),
        (port(80), port(80, "127.0.0.1"), True), (port(80, "0.0.0.0"), port(80, "127.0.0.1"), True),
        (port(80, "127.0.0.1"), port(80, "127.0.0.2"), False), (port(80, "::"), port(80, "0.0.0.0"), False),
        (port(80, "::"), port(80, "::1"), True), (port(80, "fd00::1"), port(80, "fd00:0::1"), True),
        (port(80, "::"), port(80), True),
    ],
)  # fmt: skip
def test_what_is_the_same_port(first: PortMapping, second: PortMapping, same: bool) -> None:
    assert overlap(first, second) == overlap(second, first) == same


def pods(directory: Path, *names: str) -> tuple[Registry, list[Pod]]:
    registry = Registry(Database(directory / "state.db"))
    made = [
        Pod(id=str(i) * 64, name=n, created_at="", hostname=n, vcpus=1, memory=1 << 28, spec=PodSpec(network="user"))
        for i, n in enumerate(names)
    ]
    for pod in made:
        registry.put_pod(pod)
    return registry, made


def test_the_second_start_at_once_is_refused(tmp_path: Path) -> None:
    registry, (first, second) = pods(tmp_path, "first", "second")
    ports = HostPorts(registry)
    assert ports.claim(first, [port(8080)]) == [port(8080)]
    with pytest.raises(Conflict, match=r"cannot publish 127\.0\.0\.1:8080/tcp: Address already in use by pod first"):
        ports.claim(second, [port(8081), port(8080, "127.0.0.1")])
    # Nothing of what was refused is kept; and what is released is free.
    assert ports.claim(first, [port(8081)]) == [port(8081)]
    ports.release(first.id, [port(8080)])
    assert ports.claim(second, [port(8080)]) == [port(8080)]
    ports.release(first.id)
    ports.release(first.id)
    assert ports.claim(second, [port(8081)]) == [port(8081)]


def test_a_running_pod_keeps_its_ports(tmp_path: Path) -> None:
    """By its record: this daemon may not have started it."""
    registry, (first, second) = pods(tmp_path, "first", "second")
    registry.put_pod(
        msgspec.structs.replace(
            first, ports=[port(8080)], vm=Vm(driver="qemu", pid=1, pid_started=1, directory="", token="")
        )
    )
    with pytest.raises(Conflict, match="by pod first"):
        HostPorts(registry).claim(second, [port(8080)])
    registry.put_pod(msgspec.structs.replace(first, ports=[port(8080)]))
    assert HostPorts(registry).claim(second, [port(8080)])


def test_a_pod_does_not_take_a_port_twice(tmp_path: Path) -> None:
    registry, (pod,) = pods(tmp_path, "pod")
    with pytest.raises(Conflict, match="in use by pod pod"):
        HostPorts(registry).claim(pod, [port(8080), port(8080)])


def test_a_port_of_the_daemons_choice_is_nobodys(tmp_path: Path) -> None:
    registry, (first, second) = pods(tmp_path, "first", "second")
    ports = HostPorts(registry)
    chosen = [p.host_port for pod in (first, second) for p in ports.claim(pod, [port(0)] * 20)]
    assert len(set(chosen)) == 40 and 0 not in chosen
    with pytest.raises(Conflict, match="cannot publish 192.0.2.77:0/tcp: Cannot assign requested address"):
        ports.claim(first, [port(0, "192.0.2.77")])


def test_a_port_of_another_program(tmp_path: Path) -> None:
    """Rules would take it away from that; a user-mode network is told by the bind that fails."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        registry, (pod,) = pods(tmp_path, "pod")
        attached = msgspec.structs.replace(
            pod,
            attachments=[Attachment(network="n", interface="eth0", tap="ht0", mac="0a:00:00:00:00:01", ip="10.0.0.2")],
        )
        with pytest.raises(Conflict, match=rf"0\.0\.0\.0:{number}/tcp: Address already in use by .*\(pid "):
            HostPorts(registry).claim(attached, [port(number)])


def test_a_descriptor_that_is_gone_hides_no_owner() -> None:
    """Listing our own descriptors needs one, closed when they are looked at: here a lower one than the socket's."""
    with open("/dev/null") as lower, socket.create_server(("127.0.0.1", 0)) as taken:
        lower.close()
        assert port_owner(taken.getsockname()[1], "tcp").endswith(f"(pid {os.getpid()})")
