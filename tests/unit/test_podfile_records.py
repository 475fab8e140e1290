# SPDX-License-Identifier: Apache-2.0
"""What is accepted can be stored and read back, whatever a file or a request holds."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck as Health
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercontainer.engine.plan import check_plan
from hypercontainer.errors import HyperError, InvalidArgument
from hypercontainer.model import specs
from hypercontainer.model.pods import PodPlan, PodSpec
from hypercontainer.model.status import Container, Pod, Process
from hypercontainer.podfile import strict
from hypercontainer.podfile.compose import from_compose
from hypercontainer.podfile.convert import convert, files_to_fetch
from hypercontainer.podfile.kubernetes import from_manifests
from hypercontainer.podfile.load import Loaded
from hypercontainer.state.database import Database


def records(plan: PodPlan) -> tuple[Pod, list[Container]]:
    """What the daemon stores of a plan."""
    pod = Pod(
        id="p",
        name=plan.name,
        created_at="",
        hostname=plan.hostname,
        vcpus=1,
        memory=1,
        spec=plan.spec,
        labels=plan.labels,
    )
    process = Process(args=["x"], env=[], cwd="/", user="", stop_signal=15)
    members = [
        Container(
            id=f"c{i}",
            name=f"c{i}",
            pod="p",
            created_at="",
            image=s.image,
            image_id="",
            hostname="h",
            process=process,
            spec=s,
            health=s.health,
        )
        for i, s in enumerate(plan.containers)
    ]
    return pod, members


def plan_of(podfile: dict[str, Any]) -> PodPlan:
    """As the daemon makes it from what a client sent."""
    made = strict.decode(msgspec.json.decode(msgspec.json.encode(podfile)))
    plan = convert(made, {f.uri: b"" for f in files_to_fetch(made)})
    check_plan(plan)
    return plan


def accepted(plan: PodPlan, path: Path) -> None:
    """It is in the database, and there again after a restart."""
    path.unlink(missing_ok=True)
    pod, members = records(plan)
    database = Database(path)
    database.put_pod(pod)
    for member in members:
        database.put_container(member)
    database.close()
    database = Database(path)
    assert database.pods() == [pod] and database.containers() == members
    database.close()


def web(**fields: Any) -> dict[str, Any]:
    return {"id": "p", "containers": [{"image": "i", "name": "web", **fields}]}


@pytest.mark.parametrize(
    ("podfile", "says"),
    [
        (web(healthCheck={"shell": "x", "interval": 0}), "healthCheck.interval"),
        (web(healthCheck={"shell": "x", "interval": "0s"}), "interval"),
        (web(healthCheck={"shell": "x", "timeout": -1}), "healthCheck.timeout"),
        (web(healthCheck={"shell": "x", "retries": 0}), "healthCheck.retries"),
        (web(healthCheck={"shell": "x", "startPeriod": -1}), "healthCheck.startPeriod"),
        (web(healthCheck={"shell": "x", "startInterval": "0ms"}), "startInterval"),
        (web(livenessCheck={"tcp": {"port": 0}}), "livenessCheck.tcp.port"),
        (web(healthCheck={"http": {"port": 70000}}), "healthCheck.http.port"),
        (web(limits={"pids": -1}), "limits.pids"),
        (web(limits={"cpus": -1}), "limits.cpus"),
        (web(limits={"memory": -1}), "limits.memory"),
        (web(stopTimeout=-1), "stopTimeout"),
        (web(stopTimeout="1e300"), "invalid duration"),
        (web(maxRetries=-1), "maxRetries"),
        (web(tmpfs=[{"path": "/t", "size": -1}]), "tmpfs[0].size"),
        (web(tmpfs=[{"path": "/t", "size": "99999999999g"}]), "invalid size"),
        (web(tmpfs=[{"path": "/t", "perm": 99999}]), "tmpfs[0].perm"),
        (web(files=[{"path": "/f", "detail": {"name": "f"}, "user": "99999999999999999999"}]), "owner"),
        ({"services": [{"serviceIP": "10.0.0.1", "servicePort": 0}]}, "services[0].servicePort"),
        ({"interfaces": [{"mtu": -1}]}, "interfaces[0].mtu"),
        ({"volumes": [{"name": "v", "size": -5}]}, "volumes[0].size"),
        ({"shmSize": -1}, "shmSize"),
        ({"ingressRate": -1}, "rate"),
    ],
)  # fmt: skip
def test_a_bad_number_is_refused_by_the_name_of_its_field(podfile: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        plan_of(podfile)
    assert says in str(error.value)


def test_what_cannot_be_read_back_is_never_stored(tmp_path: Path) -> None:
    """Whoever builds a record, and whatever fields records will have."""
    database = Database(tmp_path / "state.db")
    bad = specs.ContainerSpec(image="i", resources=specs.Resources(pids=-1))
    (member,) = records(PodPlan(name="p", containers=[bad]))[1]
    with pytest.raises(InvalidArgument, match=r"spec\.resources\.pids"):
        database.put_container(member)
    pod = records(PodPlan(name="p", spec=PodSpec(ports=[specs.PortMapping(container_port=70000)])))[0]
    with pytest.raises(InvalidArgument, match=r"spec\.ports\[0\]\.containerPort"):
        database.put_pod(pod)
    nan = specs.ContainerSpec(image="i", resources=specs.Resources(cpus=float("nan")))
    with pytest.raises(InvalidArgument, match=r"cpus"):
        database.put_container(records(PodPlan(name="p", containers=[nan]))[1][0])
    assert database.containers() == [] and database.pods() == []
    database.close()


def test_an_image_with_a_bad_check_gets_the_defaults() -> None:
    from hypercontainer.engine.health import of_image

    raw = {
        "Test": ["CMD", "x"],
        "Interval": -1,
        "Timeout": -5,
        "StartPeriod": -1,
        "StartInterval": "soon",
        "Retries": -3,
    }
    assert of_image({"Healthcheck": raw}) == specs.HealthCheck(command=["x"])
    assert (
        of_image({"Healthcheck": {"Test": "not a list"}}) is None
        and of_image({"Healthcheck": {"Test": ["CMD"]}}) is None
    )


# -- whatever a file holds ----------------------------------------------------------------

PODFILE: dict[str, Any] = {
    "id": "p",
    "hostname": "h",
    "restartPolicy": "onFailure",
    "labels": {"a": "b"},
    "resource": {"vcpu": 1, "memory": 300},
    "log": {"type": "json-file", "config": {"max-size": "1m", "max-file": "2"}},
    "dns": ["1.1.1.1"],
    "hosts": [{"ip": "10.0.0.1", "names": ["n"]}],
    "networks": [{"name": "n", "ip": "10.0.0.2"}],
    "allow": ["10.0.0.0/8:53"],
    "ingressRate": "1m",
    "sysctls": {"kernel.msgmax": 1},
    "shmSize": 8,
    "initContainers": [{"image": "i", "name": "first"}],
    "containers": [
        {
            "image": "i",
            "name": "web",
            "command": ["c"],
            "envs": [{"env": "A", "value": 1}],
            "user": {"name": 1, "group": "g", "additionalGroups": [1]},
            "volumes": [{"path": "/v", "volume": "v", "subPath": "s"}],
            "files": [{"path": "/f", "filename": "f", "perm": "0644", "user": 1, "group": 2}],
            "ports": [{"containerPort": 1, "hostPort": 2}],
            "stopTimeout": "5s",
            "ulimits": [{"name": "nofile", "hard": 2, "soft": 1}],
            "maxRetries": 1,
            "healthCheck": {
                "http": {"port": 80, "headers": {"a": "b"}},
                "interval": 1,
                "timeout": "1s",
                "retries": 1,
                "startPeriod": 1,
            },
            "livenessCheck": {"tcp": {"port": 1}},
            "limits": {"cpus": 0.5, "memory": "64m", "pids": 5},
            "secrets": [{"secret": "s", "perm": "0400"}],
            "tmpfs": [{"path": "/t", "size": 1, "perm": "1777"}],
            "capabilities": {"add": ["NET_ADMIN"]},
            "dependsOn": [{"container": "first"}],
        }
    ],
    "files": [{"name": "f", "encoding": "base64", "content": "aGk="}],
    "volumes": [{"name": "v", "size": 5, "mountOptions": {"port": 1}}],
    "secrets": [{"name": "s", "content": "c"}],
    "interfaces": [{"ip": "10.0.0.2/24", "mtu": 1400, "gateway": "10.0.0.1"}],
    "services": [{"serviceIP": "10.0.0.9", "servicePort": 1, "hosts": [{"hostIP": "10.0.0.8", "hostPort": 2}]}],
    "portmappings": [{"containerPort": "80-81", "hostPort": "8000-8001", "hostIP": "127.0.0.1"}],
}
ODD = st.one_of(
    st.sampled_from(
        [
            0,
            -1,
            1,
            65536,
            70000,
            2**31,
            2**63,
            2**64,
            10**30,
            -(2**63) - 1,
            0.0,
            -0.5,
            1e300,
            float("inf"),
            float("nan"),
            "",
            "0",
            "0s",
            "-1",
            "1e400",
            "-5s",
            "nan",
            "inf",
            "99999999999999t",
            "\0",
            "a\0b",
            "٣",
            "²",
            "1\n",
            None,
            True,
            [],
            {},
            [None],
            {"x": None},
            ["x"],
            "80-79",
            "1-65535",
            "$(X)",
            "../..",
            "/",
            "é",
            "\ud800",
            {"name": None},
            [[]],
            [{}],
            "CMD",
        ]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every value of a document, by its path."""
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(document, dict):
        inner = document.items()
    elif isinstance(document, list):
        inner = enumerate(document)
    return [p for key, value in inner for p in [(*path, key), *places(value, (*path, key))]]


def damaged(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    out = copy.deepcopy(document)
    at = out
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return out


def holds(make: Callable[[], PodPlan], path: Path) -> None:
    """It is refused with a sentence, or it can be stored; nothing else."""
    try:
        plan = make()
    except HyperError as error:
        assert error.message
        return
    accepted(plan, path)


def translated(loaded: Loaded) -> PodPlan:
    """As the client sends it, and the daemon takes it."""
    try:
        sent = msgspec.json.encode(msgspec.to_builtins(loaded.podfile))
    except UnicodeEncodeError as error:
        raise InvalidArgument(str(error)) from error
    return plan_of(msgspec.json.decode(sent))


FUZZ = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "300")),
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    deadline=None,
    suppress_health_check=[Health.function_scoped_fixture, Health.too_slow],
)


@FUZZ
@given(st.data())
def test_podfiles(tmp_path: Path, data: st.DataObject) -> None:
    podfile = damaged(PODFILE, data.draw(st.sampled_from(places(PODFILE))), data.draw(ODD))

    def make() -> PodPlan:
        made = strict.decode(podfile)
        plan = convert(made, {f.uri: b"" for f in files_to_fetch(made)})
        check_plan(plan)
        return plan

    holds(make, tmp_path / "state.db")


MANIFEST: list[dict[str, Any]] = [
    {"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}, "binaryData": {"b": "aGk="}},
    {"kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "aGk="}, "stringData": {"l": "x"}},
    {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {"a": "b"}, "annotations": {"x": "y"}},
        "spec": {
            "restartPolicy": "Always",
            "hostname": "h",
            "terminationGracePeriodSeconds": 1,
            "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["n"]}],
            "dnsConfig": {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "1"}]},
            "securityContext": {
                "runAsUser": 1,
                "fsGroup": 2,
                "supplementalGroups": [3],
                "sysctls": [{"name": "kernel.msgmax", "value": "1"}],
            },
            "volumes": [
                {"name": "e", "emptyDir": {"sizeLimit": "64Mi"}},
                {"name": "h", "hostPath": {"path": "/"}},
                {"name": "n", "nfs": {"server": "s", "path": "/p"}},
                {"name": "k", "persistentVolumeClaim": {"claimName": "c"}},
                {"name": "c", "configMap": {"name": "c", "items": [{"key": "a", "path": "A", "mode": 420}]}},
                {"name": "s", "secret": {"secretName": "s"}},
                {
                    "name": "p",
                    "projected": {
                        "defaultMode": 420,
                        "sources": [
                            {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}
                        ],
                    },
                },
            ],
            "initContainers": [{"name": "i", "image": "i"}],
            "containers": [
                {
                    "name": "web",
                    "image": "i",
                    "command": ["c"],
                    "args": ["a"],
                    "workingDir": "/w",
                    "tty": False,
                    "env": [
                        {"name": "A", "value": "$(B)"},
                        {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "a"}}},
                        {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
                    ],
                    "envFrom": [{"prefix": "P", "secretRef": {"name": "s"}}],
                    "ports": [{"name": "http", "containerPort": 80, "hostPort": 8080, "protocol": "TCP"}],
                    "volumeMounts": [
                        {"name": "e", "mountPath": "/e", "subPath": "x"},
                        {"name": "c", "mountPath": "/c"},
                        {"name": "s", "mountPath": "/s"},
                    ],
                    "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
                    "securityContext": {"runAsUser": 5, "capabilities": {"add": ["NET_ADMIN"]}},
                    "readinessProbe": {
                        "httpGet": {"port": "http", "httpHeaders": [{"name": "a", "value": "b"}]},
                        "periodSeconds": 1,
                        "failureThreshold": 2,
                    },
                    "livenessProbe": {"tcpSocket": {"port": 80}, "initialDelaySeconds": 1},
                    "startupProbe": {"exec": {"command": ["x"]}, "timeoutSeconds": 1},
                }
            ],
        },
    },
]


@FUZZ
@given(st.data())
def test_kubernetes_pods(tmp_path: Path, data: st.DataObject) -> None:
    documents = damaged(
        MANIFEST, data.draw(st.sampled_from([p for p in places(MANIFEST) if len(p) > 1])), data.draw(ODD)
    )
    holds(lambda: translated(from_manifests(documents)), tmp_path / "state.db")


COMPOSE: dict[str, Any] = {
    "name": "p",
    "networks": {"n": {"internal": False}},
    "volumes": {"v": {"name": "w"}},
    "configs": {"c": {"content": "x"}},
    "secrets": {"s": {"content": "y"}},
    "services": {
        "db": {"image": "i"},
        "web": {
            "image": "i",
            "command": "a b",
            "entrypoint": ["e"],
            "environment": {"A": "$B", "C": 1},
            "labels": ["a=b"],
            "ports": ["80:80", {"target": 81, "published": "82"}],
            "volumes": ["v:/v", {"type": "tmpfs", "target": "/m", "tmpfs": {"size": 5, "mode": 493}}],
            "tmpfs": ["/t:size=1m,mode=700"],
            "configs": ["c", {"source": "c", "target": "/x", "mode": 292, "uid": "1"}],
            "secrets": ["s"],
            "networks": {"n": {"aliases": ["a"]}, "default": None},
            "depends_on": {"db": {"condition": "service_started"}},
            "links": ["db:d"],
            "restart": "on-failure:2",
            "user": "1:2",
            "group_add": [1],
            "healthcheck": {
                "test": ["CMD", "x"],
                "interval": "1s",
                "timeout": "1s",
                "retries": 1,
                "start_period": "1s",
            },
            "stop_grace_period": "1m",
            "deploy": {"resources": {"limits": {"cpus": "0.5", "memory": "64m", "pids": 5}}, "replicas": 1},
            "logging": {"driver": "json-file", "options": {"max-size": "1m"}},
            "cap_add": ["NET_ADMIN"],
            "security_opt": ["no-new-privileges"],
            "sysctls": {"kernel.msgmax": 1},
            "ulimits": {"nofile": {"soft": 1, "hard": 2}},
            "shm_size": "1m",
            "extra_hosts": ["a:10.0.0.1"],
            "dns": ["1.1.1.1"],
            "mem_limit": 67108864,
            "cpus": 0.5,
            "pids_limit": 5,
            "profiles": [],
        },
    },
}


@FUZZ
@given(st.data())
def test_compose_files(tmp_path: Path, data: st.DataObject) -> None:
    document = damaged(COMPOSE, data.draw(st.sampled_from(places(COMPOSE))), data.draw(ODD))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "hypercontainer.podfile.composemounts.os.makedirs", lambda *_, **__: None
        )  # wherever it may point
        holds(lambda: translated(from_compose(document, tmp_path, "p")), tmp_path / "state.db")


SPEC: dict[str, Any] = {
    "image": "i",
    "name": "n",
    "env": ["A=b"],
    "resources": {"cpus": 0.5, "memory": 1 << 26, "pids": 5},
    "ulimits": [{"name": "nofile", "soft": 1, "hard": 2}],
    "ports": [{"containerPort": 80, "hostPort": 8080}],
    "networks": [{"name": "n"}],
    "allow": [{"cidr": "10.0.0.0/8", "port": 53}],
    "ingressRate": 5,
    "mounts": [{"target": "/t", "type": "tmpfs", "size": 5, "mode": 511}],
    "files": [{"target": "/f", "content": "aGk=", "mode": 420}],
    "health": {"tcp": {"port": 80}, "interval": 1, "retries": 1},
    "restart": {"name": "on-failure", "maxRetries": 1},
    "stopTimeout": 1,
    "shmSize": 1,
    "log": {"maxSize": 1, "maxFiles": 2},
}


@FUZZ
@given(st.data())
def test_requests(tmp_path: Path, data: st.DataObject) -> None:
    from hypercontainer.engine import resolve

    body = damaged(SPEC, data.draw(st.sampled_from(places(SPEC))), data.draw(ODD))

    def make() -> PodPlan:
        try:
            spec = msgspec.json.decode(msgspec.json.encode(body), type=specs.ContainerSpec)
        except (
            msgspec.MsgspecError,
            UnicodeEncodeError,
            OverflowError,
        ) as error:  # the API's answer to a body that is none
            raise InvalidArgument(str(error)) from error
        resolve.validate(spec)
        return PodPlan(name="p", containers=[spec])

    holds(make, tmp_path / "state.db")
