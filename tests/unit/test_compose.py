# SPDX-License-Identifier: Apache-2.0
"""Docker's compose files: what is honoured, what is named, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hypercontainer.engine.plan import check_plan
from hypercontainer.errors import InvalidArgument
from hypercontainer.model.pods import PodPlan
from hypercontainer.model.specs import ContainerSpec, HostEntry
from hypercontainer.podfile.compose import from_compose
from hypercontainer.podfile.convert import convert
from hypercontainer.podfile.load import Loaded, images, load
from hypercontainer.podfile.variables import expand, read_file


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME"):
        monkeypatch.delenv(name, raising=False)


def loaded(services: dict[str, Any], base: Path = Path("/nonexistent"), **top: Any) -> Loaded:
    return from_compose({"services": {k: {"image": "i", **s} for k, s in services.items()}, **top}, base, "p")


def plan(services: dict[str, Any], base: Path = Path("/nonexistent"), **top: Any) -> PodPlan:
    made = convert(loaded(services, base, **top).podfile, {})
    check_plan(made)
    return made


def web(base: Path = Path("/nonexistent"), **service: Any) -> ContainerSpec:
    return plan({"web": service}, base).containers[0]


# -- networks -------------------------------------------------------------------------------


def test_internal_services_do_not_reach_the_outside() -> None:
    networks = {"inside": {"internal": True}, "outside": {}}
    for closed in ({"networks": ["inside"]}, {"network_mode": "none"}):
        with pytest.raises(
            InvalidArgument,
            match="'db' is in internal networks only, and 'web' is not: in one pod 'db' would reach the outside",
        ):
            loaded({"web": {"networks": ["inside", "outside"]}, "db": closed}, networks=networks)
    found = loaded(
        {"web": {"networks": ["inside"], "ports": ["80:80"]}, "db": {"networks": {"inside": None}}}, networks=networks
    )
    assert (found.podfile.network, found.podfile.portmappings, found.unmapped) == (
        "none",
        [],
        ["ports of services in internal networks"],
    )


def test_egress_of_the_file() -> None:
    hyper = {"allowHosts": ["*.example.com"], "injectSecrets": [{"secret": "s", "host": "api.example.com"}],
             "egressRate": "1m"}  # fmt: skip
    found = plan({"web": {"image": "i"}}, secrets={"s": {"content": "value"}}, **{"x-hyper": hyper, "x-mine": 1})
    assert found.spec.egress
    assert [str(host) for host in found.spec.egress.hosts] == ["*.example.com"]
    assert [(s.name, s.host, s.value) for s in found.spec.egress.secrets] == [("s", "api.example.com", b"value")]
    assert (found.spec.egress_rate, found.secrets) == (1_000_000, {})
    with pytest.raises(InvalidArgument, match=r"x-hyper\.allowHost: unknown key: did you mean 'allowHosts'"):
        plan({"web": {"image": "i"}}, **{"x-hyper": {"allowHost": []}})


def test_platforms() -> None:
    services = {"web": {"image": "i", "platform": "linux/arm64"}, "db": {"image": "j"}}
    assert [c.platform for c in plan(services).containers] == ["linux/arm64", ""]
    assert (images(loaded(services).podfile), loaded(services).unmapped) == ({"i": "linux/arm64", "j": ""}, [])


def test_walls_between_services_are_named() -> None:
    found = loaded({"web": {"networks": ["a"]}, "db": {"networks": ["b"]}}, networks={"a": None, "b": {}})
    assert found.unmapped == ["networks: the wall between the services web and db, which share the pod's network,"]
    assert (
        loaded({"web": {"networks": ["a"]}, "db": {"networks": ["a", "b"]}}, networks={"a": None, "b": {}}).unmapped
        == []
    )


def test_external_networks_are_joined() -> None:
    made = plan({"web": {"networks": ["front"]}}, networks={"front": {"external": True, "name": "shared"}})
    assert [n.name for n in made.spec.networks] == ["shared"]


@pytest.mark.parametrize(
    ("service", "says"),
    [
        ({"network_mode": "host"}, "services.web.network_mode: a virtual machine has a network of its own"),
        ({"networks": ["none"]}, "services.web: the network 'none' is not defined"),
        ({"security_opt": ["apparmor:mine"]}, "'apparmor:mine' cannot be enforced here, so this file does not run"),
        ({"imagee": "x"}, "compose file: services.web.imagee: unknown key: did you mean 'image'?"),
        (
            {"healthcheck": {"test": "x", "interal": "1s"}},
            "services.web.healthcheck.interal: unknown key: did you mean 'interval'?",
        ),
        ({"healthcheck": {"test": "x", "interval": "0s"}}, "interval"),
        ({"healthcheck": {"test": ["x"]}}, "begin it with CMD or CMD-SHELL"),
        ({"restart": "sometimes"}, "services.web.restart: invalid value 'sometimes': use one of"),
        ({"depends_on": ["nosuch"]}, "it depends on 'nosuch', which is not there"),
        ({"links": ["nosuch:x"]}, "it links to 'nosuch', which is not there"),
        ({"command": "sh -c 'open"}, "cannot be split into words"),
        ({"cpus": "many"}, "'many' is no number"),
        ({"shm_size": "lots"}, "invalid size 'lots'"),
        ({"environment": {"A": "${B:?give it}"}}, "the variable B is not set: give it"),
        ({"environment": {"A": "${B"}}, "without its }"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(service: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        plan({"web": service})
    assert says in str(error.value)


# -- names and variables ---------------------------------------------------------------------


def test_the_file_may_name_the_pod(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text("name: shop\nservices: {web: {image: i}}")
    assert load(str(path)).podfile.id == "shop" and load(str(path), name="other").podfile.id == "other"
    path.write_text("services: {web: {image: i}}")
    with pytest.raises(InvalidArgument, match="name that pod with --pod NAME, or by the file's name:"):
        load(str(path))


def test_variables_of_the_projects_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("TAG=1.2\nHOST=from-file\nCOMPOSE_PROFILES=debug\n")
    monkeypatch.setenv("HOST", "from-here")
    monkeypatch.delenv("TAG", raising=False)
    services = {"web": {"image": "i:${TAG}", "environment": {"HOST": "${HOST}"}}, "tool": {"profiles": ["debug"]}}
    found = from_compose(
        {"services": {"tool": {"image": "i", **services.pop("tool")}, **services}}, tmp_path, "p"
    ).podfile
    assert {c.name: c.image for c in found.containers} == {"p-tool": "i", "p-web": "i:1.2"} and found.containers[
        1
    ].envs[0].value == "from-here"


def test_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    services = {"web": {"depends_on": {"tool": {"required": False}}}, "tool": {"profiles": ["debug"]}}
    assert [c.name for c in plan(services).containers] == ["p-web"]
    with pytest.raises(
        InvalidArgument, match="it depends on 'tool', which belongs to a profile that is off: set COMPOSE_PROFILES"
    ):
        plan({"web": {"depends_on": ["tool"]}, "tool": {"profiles": ["debug"]}})
    monkeypatch.setenv("COMPOSE_PROFILES", "other,debug")
    assert [c.name for c in plan(services).containers] == ["p-web", "p-tool"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$A-${A}", "1-1"), ("$$A", "$A"), ("${N:-x${A}}", "x1"), ("${N:-${M:-deep}}", "deep"),
        ("${E-x}", ""), ("${E:-x}", "x"), ("${A:+yes}", "yes"),
        ("${N+yes}", ""), ("${A?}", "1"),
    ],
)  # fmt: skip
def test_interpolation(text: str, value: str) -> None:
    assert expand(text, {"A": "1", "E": ""}) == value


def test_quotes_in_env_files(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("""# a comment
PLAIN=a b # said
export SINGLE='$PLAIN "as it is" # all'
DOUBLE="a\\n$PLAIN \\"b\\" \\$x"
EMPTY=
HERE
MISSING
LINES="one
two"
""")
    found = read_file(path, {"HERE": "h"})
    assert found == {
        "PLAIN": "a b",
        "SINGLE": '$PLAIN "as it is" # all',
        "DOUBLE": 'a\na b "b" $x',
        "EMPTY": "",
        "HERE": "h",
        "LINES": "one\ntwo",
    }
    assert read_file(path, {}, raw=True)["PLAIN"] == "a b # said"
    c = web(tmp_path, env_file=["env", {"path": "none", "required": False}], environment=["PLAIN=mine"])
    assert "PLAIN=mine" in c.env and "EMPTY=" in c.env
    with pytest.raises(InvalidArgument, match="cannot read the env file"):
        web(tmp_path, env_file="none")


# -- the rest ----------------------------------------------------------------------------------


def test_names_of_containers() -> None:
    made = plan(
        {
            "web": {
                "container_name": "front",
                "hostname": "www",
                "networks": {"default": {"aliases": ["shop"]}},
                "links": ["db:database"],
            },
            "db": {},
        }
    )
    front, db = made.containers
    assert (front.name, front.aliases) == ("front", ["web", "front", "www", "shop"])
    assert (db.name, db.aliases) == ("p-db", ["db", "database"])


def test_processes() -> None:
    """As compose has it: each service's are its own, unless it says whose they shall be."""
    made = plan({"web": {"init": True}, "db": {}, "helper": {"pid": "service:db"}})
    assert made.spec.pid == "container"
    assert [(c.pid, c.run_init) for c in made.containers] == [("", True), ("pod", False), ("pod", False)]
    assert loaded({"web": {"pid": "host"}}).unmapped == ["services.web.pid"]
    with pytest.raises(InvalidArgument, match=r"services\.web\.pid: there is no service 'x'"):
        plan({"web": {"pid": "service:x"}})


def test_storage(tmp_path: Path) -> None:
    made = plan(
        {
            "web": {
                "tmpfs": ["/t:size=64m,mode=700", "/u"],
                "volumes": [
                    "data:/d:ro,nocopy",
                    {"type": "tmpfs", "target": "/m", "tmpfs": {"size": 1048576, "mode": 0o755}},
                    "./made:/b",
                ],
            }
        },
        tmp_path,
        volumes={"data": None},
    )
    mounts = {m.target: m for m in made.containers[0].mounts}
    assert (mounts["/t"].size, mounts["/t"].mode, mounts["/u"].size) == (64 << 20, 0o700, 0)
    assert (mounts["/m"].size, mounts["/m"].mode, mounts["/m"].type) == (1 << 20, 0o755, "tmpfs")
    assert (mounts["/d"].read_only, mounts["/d"].copy_up) == (True, False) and (tmp_path / "made").is_dir()


def test_the_pods_share() -> None:
    made = plan(
        {
            "web": {"shm_size": "128m", "extra_hosts": ["a:10.0.0.1", "b=fd00::1", "c:host-gateway"], "dns": "1.1.1.1"},
            "db": {"shm_size": 1 << 20, "extra_hosts": {"a": "10.0.0.1"}},
        }
    )
    assert made.spec.shm_size == 128 << 20 and made.spec.dns == ["1.1.1.1"]
    assert made.spec.hosts == [
        HostEntry(ip="10.0.0.1", names=["a"]),
        HostEntry(ip="fd00::1", names=["b"]),
        HostEntry(ip="host-gateway", names=["c"]),
    ]


def test_how_long_the_pod_lives() -> None:
    """By labels of its services, of which the shortest counts."""
    labels = {"hypercontainer.ttl": "1h", "hypercontainer.idle-timeout": "10m"}
    made = plan({"web": {"labels": labels}, "db": {"labels": ["hypercontainer.ttl=30m"]},
                 "endless": {"labels": ["hypercontainer.ttl=0"]}, "other": {}})  # fmt: skip
    assert (made.spec.ttl, made.spec.idle_timeout) == (1800, 600)
    with pytest.raises(InvalidArgument, match="invalid duration 'soon'"):
        plan({"web": {"labels": {"hypercontainer.ttl": "soon"}}})


def test_security_logging_limits() -> None:
    c = web(
        security_opt=["no-new-privileges:true", "seccomp:unconfined"],
        logging={"driver": "json-file", "options": {"max-size": "1m", "max-file": 3}},
        mem_limit="64m",
        cpus="0.5",
        pids_limit=-1,
        group_add=["audio"],
        ulimits={"nofile": 9},
    )
    assert (c.no_new_privileges, c.seccomp, c.log.max_size, c.log.max_files) == (True, "unconfined", 1 << 20, 3)
    assert (c.resources.memory, c.resources.cpus, c.resources.pids, c.groups, c.ulimits[0].hard) == (
        64 << 20,
        0.5,
        0,
        ["audio"],
        9,
    )
    assert web(logging={"driver": "none"}).log.driver == "none"
    deploy = {
        "resources": {"limits": {"memory": 67108864, "cpus": "0.25", "pids": 5}},
        "restart_policy": {"condition": "on-failure", "max_attempts": 2},
    }
    c = web(deploy=deploy)
    assert (c.resources.memory, c.resources.cpus, c.resources.pids, c.restart.name, c.restart.max_retries) == (
        64 << 20,
        0.25,
        5,
        "on-failure",
        2,
    )


def test_what_is_not_honoured_is_named() -> None:
    found = loaded(
        {
            "web": {
                "devices": ["/dev/x"],
                "ipc": "host",
                "logging": {"driver": "gelf"},
                "deploy": {"replicas": 3},
                "x-mine": 1,
            }
        },
        **{"x-a": 1},
    )
    assert sorted(found.unmapped) == [
        "services.web.deploy.replicas",
        "services.web.devices",
        "services.web.ipc",
        "services.web.logging.driver gelf",
    ]
