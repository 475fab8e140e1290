# SPDX-License-Identifier: Apache-2.0
"""ps, inspect and templates: filters, ports, addresses, headers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hypercontainer.hyperctl import container_view, inspect
from hypercontainer.hyperctl.output import show
from hypercontainer.model.network import Attachment
from hypercontainer.model.specs import ContainerSpec, PortMapping
from hypercontainer.model.status import Container, ContainerState, ContainerStatus, Pod, Process, Vm
from hypercontainer.sys import clock


def container(name: str = "u1", image: str = "busybox", ports: list[PortMapping] | None = None) -> Container:
    process = Process(args=["x"], env=[], cwd="/", user="", stop_signal=15)
    return Container(
        id="a" * 64,
        name=name,
        pod="p" * 64,
        created_at="2026-01-01T00:00:00Z",
        image=image,
        image_id="sha256:" + "b" * 64,
        hostname="h",
        process=process,
        spec=ContainerSpec(image=image),
        ports=ports or [],
    )


def test_what_is_wrong_is_in_the_status() -> None:
    now = clock.stamp()
    running = ContainerState(status=ContainerStatus.RUNNING, started_at=now, log_error="No such file or directory")
    told = container_view.describe_state(msgspec.structs.replace(container(), state=running))
    assert told.startswith("Up ") and told.endswith(" (log not written)")
    waiting = ContainerState(status=ContainerStatus.RESTARTING, finished_at=now, exit_code=125, error="no memory")
    told = container_view.describe_state(msgspec.structs.replace(container(), state=waiting))
    assert told.startswith("Restarting (125) ") and told.endswith(" ago: no memory")


def test_ranges_of_ports_are_one_word() -> None:
    def port(container_port: int, host_port: int, protocol: Any = "tcp", ip: str = "") -> PortMapping:
        return PortMapping(container_port=container_port, host_port=host_port, protocol=protocol, host_ip=ip)

    ports = [
        port(81, 8001),
        port(80, 8000),
        port(82, 8002),
        port(82, 9000),
        port(53, 53, "udp"),
        port(83, 8003, ip="127.0.0.1"),
    ]
    assert container_view.describe_mappings(ports) == (
        "0.0.0.0:8000-8002->80-82/tcp, 0.0.0.0:9000->82/tcp, 0.0.0.0:53->53/udp, 127.0.0.1:8003->83/tcp"
    )


def test_a_table_of_a_template_has_a_head(capsys: pytest.CaptureFixture[str]) -> None:
    items = [{"name": "a-long-name", "state": {"pid": 5}}, {"name": "b", "state": {"pid": 17}}]
    show(items, "table {{.Name}}\\t{{.State.Pid}}", [], lambda _: [])
    assert capsys.readouterr().out == "NAME          PID\na-long-name   5\nb             17\n"
    show([], "table {{.Name}}\\t{{json .State}}", [], lambda _: [])
    assert capsys.readouterr().out == "NAME      STATE\n"
    show(items, "{{.Name}}", [], lambda _: [])
    assert capsys.readouterr().out == "a-long-name\nb\n"


def test_inspect_shows_addresses() -> None:
    nic = Attachment(
        network="bridge",
        interface="eth0",
        tap="t",
        mac="0a:00:00:00:00:01",
        ip="172.20.0.9",
        ip6="fd00::9",
        aliases=["x"],
    )
    ports = [PortMapping(container_port=80, host_port=8080)]
    pod = Pod(id="p" * 64, name="p", created_at="", hostname="h", vcpus=1, memory=1, attachments=[nic], ports=ports)
    found = inspect.with_network(container(), pod)
    settings = found["networkSettings"]
    assert (settings["ipAddress"], settings["macAddress"]) == ("172.20.0.9", "0a:00:00:00:00:01")
    assert (
        settings["networks"]["bridge"]["ipAddress"] == "172.20.0.9"
        and settings["networks"]["bridge"]["globalIPv6Address"] == "fd00::9"
    )
    assert settings["userNetwork"] == ""
    vm = Vm(driver="qemu", pid=1, directory="", token="", user_network="passt")
    found_running = inspect.with_network(container(), msgspec.structs.replace(pod, vm=vm))
    assert found_running["networkSettings"]["userNetwork"] == "passt"
    assert settings["ports"] == {"80/tcp": [{"hostIp": "0.0.0.0", "hostPort": "8080"}]} and found["name"] == "u1"


def test_single_labels_are_a_function_of_templates(capsys: pytest.CaptureFixture[str]) -> None:
    items = [{"labels": "a.b-c=1,d=2", "label": {"a.b-c": "1", "d": "2"}}]
    show(items, '{{.Label "a.b-c"}} {{.Label "none"}}|{{upper (.Label "d")}}|{{.Labels}}', [], lambda _: [])
    show(items, 'table {{.Label "a.b-c"}}\\t{{.Labels}}', [], lambda _: [])
    show(items, "json", [], lambda _: [])
    told = capsys.readouterr().out
    assert told.startswith("1 |2|a.b-c=1,d=2\nb c       LABELS\n1         a.b-c=1,d=2\n") and '"label"' not in told


def test_where_to_look_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    from hypercontainer.hyperctl.cli import run

    for args in (["zzzzzz"], ["run", "--zzzzzz"]):
        assert run(args) in (2, 125)
        assert capsys.readouterr().err.count("--help`") == 1, args
