# SPDX-License-Identifier: Apache-2.0
"""Kubernetes' Pods: what is honoured, what is named, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hypercontainer.engine import environment, resolve
from hypercontainer.engine.plan import check_plan
from hypercontainer.errors import InvalidArgument
from hypercontainer.model.pods import PodPlan
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.podfile.convert import convert
from hypercontainer.podfile.kubernetes import from_manifests
from hypercontainer.podfile.load import Loaded, load

ADDRESSES = {"podIP": "172.20.0.5", "hostIP": "172.20.0.1"}


def loaded(spec: dict[str, Any], *others: dict[str, Any], **metadata: Any) -> Loaded:
    spec.setdefault("containers", [{"name": "web", "image": "i"}])
    return from_manifests(
        [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", **metadata}, "spec": spec}, *others]
    )


def plan(spec: dict[str, Any], *others: dict[str, Any], **metadata: Any) -> PodPlan:
    made = convert(loaded(spec, *others, **metadata).podfile, {})
    check_plan(made)
    return made


def web(spec: dict[str, Any], container: dict[str, Any], *others: dict[str, Any], **metadata: Any) -> ContainerSpec:
    return plan({**spec, "containers": [{"name": "web", "image": "i", **container}]}, *others, **metadata).containers[
        -1
    ]


def config(name: str, **data: str) -> dict[str, Any]:
    return {"kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def secret(name: str, **data: str) -> dict[str, Any]:
    return {"kind": "Secret", "metadata": {"name": name}, "stringData": data}


# -- security -------------------------------------------------------------------------------


def test_the_pods_security_context_is_its_containers() -> None:
    context = {
        "runAsUser": 1000,
        "runAsGroup": 3000,
        "fsGroup": 2000,
        "supplementalGroups": [4000],
        "runAsNonRoot": True,
    }
    c = web({"securityContext": context}, {})
    assert (c.user, c.groups, c.non_root) == ("1000:3000", ["4000", "2000"], True)
    own = web(
        {"securityContext": context}, {"securityContext": {"runAsUser": 5, "runAsGroup": 6, "runAsNonRoot": False}}
    )
    assert (own.user, own.non_root) == ("5:6", False)


@pytest.mark.parametrize(
    ("context", "image_user", "says"),
    [
        ({}, "", "must not run as root, and would"),
        ({}, "root", "must not run as root, and would"),
        ({}, "0:5", "must not run as root, and would"),
        ({"runAsUser": 0}, "1000", "must not run as root, and would"),
        ({}, "app", "the image names its user 'app' without a number"),
    ],
)
def test_a_pod_that_must_not_be_root_is_not(context: dict[str, Any], image_user: str, says: str) -> None:
    c = web({"securityContext": {"runAsNonRoot": True, **context}}, {"command": ["x"]})
    with pytest.raises(InvalidArgument, match=says):
        resolve.process_of(c, {"User": image_user}, "h")


def test_one_that_is_not_root_runs_and_a_group_alone_keeps_the_images_user() -> None:
    c = web({"securityContext": {"runAsNonRoot": True, "runAsGroup": 7}}, {"command": ["x"]})
    assert resolve.process_of(c, {"User": "1000:9"}, "h").user == "1000:7"


@pytest.mark.parametrize("where", ["pod", "container"])
@pytest.mark.parametrize(
    "context",
    [
        {"seLinuxOptions": {"level": "s0"}},
        {"windowsOptions": {}},
        {"appArmorProfile": {"type": "Localhost", "localhostProfile": "x"}},
    ],
)
def test_security_that_cannot_be_enforced_refuses_to_run(where: str, context: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="cannot be enforced here, so this Pod does not run"):
        web(
            {"securityContext": context} if where == "pod" else {},
            {"securityContext": context} if where == "container" else {},
        )


def test_seccomp_and_capabilities() -> None:
    context = {
        "seccompProfile": {"type": "RuntimeDefault"},
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
    }
    c = web({}, {"securityContext": context})
    assert (c.seccomp, c.cap_drop, c.cap_add, c.no_new_privileges, c.read_only) == (
        "default",
        ["ALL"],
        ["NET_BIND_SERVICE"],
        True,
        True,
    )
    assert web({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, {}).seccomp == "unconfined"
    assert loaded({"securityContext": context | {"capabilities": None}} if False else {}).unmapped == []


def test_whose_processes_are_seen() -> None:
    assert plan({}).spec.pid == "container"
    shared = loaded({"shareProcessNamespace": True})
    assert (shared.podfile.pid, shared.unmapped) == ("pod", [])


def test_modes_of_volumes_and_files() -> None:
    spec = {
        "volumes": [
            {"name": "scratch", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
            {
                "name": "config",
                "configMap": {
                    "name": "c",
                    "defaultMode": 0o400,
                    "items": [{"key": "a", "path": "A", "mode": 0o755}, {"key": "b", "path": "B"}],
                },
            },
            {"name": "key", "secret": {"secretName": "s"}},
        ],
    }
    mounts = [{"name": n, "mountPath": f"/{n}"} for n in ("scratch", "memory", "config", "key")]
    made = plan(
        {**spec, "containers": [{"name": "w", "image": "i", "volumeMounts": mounts}]},
        config("c", a="1", b="2"),
        secret("s", k="3"),
    )
    assert [(v.format, v.mode, v.gid, v.size) for v in made.volumes] == [
        ("", 0o777, 0, 0),
        ("tmpfs", 0o777, 0, 64 << 20),
    ]
    (c,) = made.containers
    assert {f.target: (f.mode, f.content) for f in c.files} == {"/config/A": (0o755, b"1"), "/config/B": (0o400, b"2")}
    assert [(x.target, x.mode, x.gid) for x in c.secrets] == [("/key/k", 0o644, 0)]
    grouped = plan(
        {
            **spec,
            "securityContext": {"fsGroup": 2000},
            "containers": [{"name": "w", "image": "i", "volumeMounts": mounts}],
        },
        config("c", a="1", b="2"),
        secret("s", k="3"),
    )
    assert {(v.mode, v.gid) for v in grouped.volumes} == {(0o2777, 2000)}
    assert {(f.target, f.mode, f.gid) for f in grouped.containers[0].files} == {
        ("/config/A", 0o755, 2000),
        ("/config/B", 0o440, 2000),
    }
    assert grouped.containers[0].secrets[0].gid == 2000


# -- environment ------------------------------------------------------------------------------


def resolved(c: ContainerSpec) -> tuple[list[str], list[str] | None, list[str] | None]:
    done = environment.resolved(c, ADDRESSES)
    return done.env, done.entrypoint, done.command


def test_variables_are_replaced_in_variables_commands_and_arguments() -> None:
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(C)-$$(A)"}, {"name": "C", "value": "3"}]
    found = resolved(
        web({}, {"env": env, "command": ["run", "--b=$(B)"], "args": ["$(C)", "$(NOSUCH)", "$$(C)", "$HOME"]})
    )
    assert found == (["A=1", "B=1$(C)-$(A)", "C=3"], ["run", "--b=1$(C)-$(A)"], ["3", "$(NOSUCH)", "$(C)", "$HOME"])


def test_fields_and_resources() -> None:
    def field(name: str, path: str) -> dict[str, Any]:
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}

    def amount(name: str, resource: str, divisor: str = "1") -> dict[str, Any]:
        return {"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": divisor}}}

    env = [
        field("IP", "status.podIP"),
        field("HOST", "status.hostIP"),
        field("NS", "metadata.namespace"),
        field("APP", "metadata.labels['app']"),
        field("NOTE", "metadata.annotations['x/y']"),
        field("SA", "spec.serviceAccountName"),
        amount("CPU", "limits.cpu"),
        amount("MEM", "limits.memory", "1Mi"),
        amount("REQ", "requests.cpu", "1m"),
        {"name": "URL", "value": "http://$(IP)/"},
    ]
    resources = {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}
    found = resolved(web({}, {"env": env, "resources": resources}, labels={"app": "shop"}, annotations={"x/y": "z"}))[0]
    assert found == [
        "IP=172.20.0.5",
        "HOST=172.20.0.1",
        "NS=default",
        "APP=shop",
        "NOTE=z",
        "SA=default",
        "CPU=1",
        "MEM=64",
        "REQ=250",
        "URL=http://172.20.0.5/",
    ]
    with pytest.raises(InvalidArgument, match="asks for the pod's podIP, which its network does not tell"):
        environment.resolved(web({}, {"env": [field("IP", "status.podIP")]}), {})


def test_configuration_in_variables() -> None:
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "a"}}},
           {"name": "N", "valueFrom": {"secretKeyRef": {"name": "nosuch", "key": "x", "optional": True}}}]  # fmt: skip
    c = web(
        {},
        {
            "envFrom": [
                {"prefix": "P_", "secretRef": {"name": "s"}},
                {"configMapRef": {"name": "none", "optional": True}},
            ],
            "env": env,
        },
        config("c", a="1"),
        secret("s", k="v"),
    )
    assert c.env == ["P_k=v", "A=1"]
    for bad in (
        {"envFrom": [{"secretRef": {"name": "none"}}]},
        {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "none"}}}]},
    ):
        with pytest.raises(InvalidArgument, match="none"):
            web({}, bad, secret("s", k="v"))


# -- the rest -----------------------------------------------------------------------------------


def test_named_ports_of_probes() -> None:
    ports = [{"name": "http", "containerPort": 8080}]
    c = web(
        {},
        {
            "ports": ports,
            "readinessProbe": {"httpGet": {"port": "http"}},
            "livenessProbe": {"tcpSocket": {"port": "http"}},
        },
    )
    assert (
        c.health
        and c.health.http
        and c.health.http.port == 8080
        and c.liveness
        and c.liveness.tcp
        and c.liveness.tcp.port == 8080
    )
    with pytest.raises(InvalidArgument, match="a probe's port 'web' is the name of none: its ports are http"):
        web({}, {"ports": ports, "readinessProbe": {"httpGet": {"port": "web"}}})


def test_projected_and_downward_volumes() -> None:
    about = {
        "items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "cpu", "resourceFieldRef": {"containerName": "web", "resource": "limits.cpu", "divisor": "1m"}},
        ]
    }
    sources = [
        {"configMap": {"name": "c"}},
        {"secret": {"name": "s", "items": [{"key": "k", "path": "deep/K"}]}},
        {"downwardAPI": about},
        {"configMap": {"name": "none", "optional": True}},
        {"serviceAccountToken": {"path": "token"}},
    ]
    spec = {
        "volumes": [
            {"name": "all", "projected": {"defaultMode": 0o440, "sources": sources}},
            {"name": "about", "downwardAPI": about},
        ],
        "containers": [
            {
                "name": "web",
                "image": "i",
                "resources": {"limits": {"cpu": 1}},
                "volumeMounts": [
                    {"name": "all", "mountPath": "/all"},
                    {"name": "about", "mountPath": "/cpu", "subPath": "cpu"},
                ],
            }
        ],
    }
    found = loaded(dict(spec), config("c", a="1"), secret("s", k="2"), labels={"a": "b", "c": 'say "d"'})
    (c,) = convert(found.podfile, {}).containers
    assert {f.target: (f.content, f.mode) for f in c.files} == {
        "/all/a": (b"1", 0o440),
        "/all/labels": (b'a="b"\nc="say \\"d\\""', 0o440),
        "/all/cpu": (b"1000", 0o440),
        "/cpu": (b"1000", 0o644),
    }
    assert [(s.target, s.mode) for s in c.secrets] == [("/all/deep/K", 0o440)]
    assert found.unmapped == ["volume all: serviceAccountToken, which only a cluster has,"]


def test_binary_secrets() -> None:
    data = {"kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "/wA="}}
    made = plan({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}, data)
    assert made.secrets == {"s.k": b"\xff\x00"}


def test_a_directory_that_is_not_there_is_made(tmp_path: Path) -> None:
    made = plan({"volumes": [{"name": "v", "hostPath": {"path": str(tmp_path / "a/b"), "type": "DirectoryOrCreate"}}]})
    assert (tmp_path / "a/b").is_dir() and made.volumes[0].source == str(tmp_path / "a/b")
    with pytest.raises(InvalidArgument, match="is not there as a Directory"):
        plan({"volumes": [{"name": "v", "hostPath": {"path": str(tmp_path / "none"), "type": "Directory"}}]})
    with pytest.raises(InvalidArgument, match="a Socket of this host cannot be brought into"):
        plan({"volumes": [{"name": "v", "hostPath": {"path": str(tmp_path), "type": "Socket"}}]})


def test_sidecars_start_before_the_others_and_go_on() -> None:
    spec = {
        "initContainers": [{"name": "log", "image": "i", "restartPolicy": "Always"}, {"name": "prepare", "image": "i"}]
    }
    prepare, log, server = plan(spec).containers
    assert (prepare.init, log.init, log.restart.name) == (True, False, "always")
    assert [d.container for d in server.depends_on] == ["log"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: Pod\nspec: {containers: [{name: a}]}", "Pod: spec.containers[0]: 'image' is missing"),
        ("kind: Pod\nspec: {containers: [{name: a, image: i, comand: [x]}]}",
         "Pod: spec.containers[0].comand: unknown key: did you mean 'command'?"),
        ("kind: Pod\nspec: {containers: [], securityContex: {}}", "did you mean 'securityContext'?"),
        ("kind: Deployment\nspec: {template: {spec: {}}}",
         "the file has a Deployment and no Pod, and only a cluster makes Pods of it: write the Pod that"),
        ("kind: CronJob\nspec: {jobTemplate: {}}", "the file has a CronJob and no Pod"),
        ("kind: Service\nspec: {}",
         "the file has a Service and no Pod, and only a cluster makes Pods of it: add a kind: Pod"),
        ("kind: Pod\nspec: {containers: [{name: a, image: i, livenessProbe: {exec: {command: [x]},"
         " periodSeconds: -1}}]}",
         "Pod: spec.containers[0].livenessProbe.periodSeconds: must be a whole number of at least 1, not"),
        ("kind: Pod\nspec: {containers: [{name: a, image: i, livenessProbe: {tcpSocket: {port: 0}}}]}",
         "livenessProbe.tcpSocket.port: must be a whole number of at least 1, not"),
        ("kind: Pod\nspec: {containers: [{name: a, image: i, volumeMounts: [{name: v, mountPath: /v}]}]}",
         "there is no volume 'v'"),
        ("kind: Pod\nspec: {containers: [{name: a, image: i, resources: {limits: {memory: lots}}}]}",
         "invalid quantity 'lots'"),
        ("kind: Pod\nspec: {containers: [], restartPolicy: Sometimes}",
         "spec.restartPolicy: 'Sometimes' is none of Always, Never, OnFailure"),
        ("kind: Pod\nspec: {containers: [], volumes: [{name: v, secret: {secretName: s}}]}\n"
         "---\nkind: Secret\nmetadata: {name: s}\ndata: {k: '*'}", "k is not base64"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(text)
    with pytest.raises(InvalidArgument) as error:
        load(str(path))
    assert says in str(error.value)


def test_what_is_not_honoured_is_named() -> None:
    spec = {
        "hostNetwork": True,
        "activeDeadlineSeconds": 5,
        "imagePullSecrets": [{"name": "x"}],
        "schedulerName": "x",
        "affinity": {},
        "containers": [
            {
                "name": "a",
                "image": "i",
                "lifecycle": {"preStop": {}},
                "imagePullPolicy": "Always",
                "resources": {"limits": {"gpu": 1}},
                "readinessProbe": {"httpGet": {"port": 443, "scheme": "HTTPS"}},
            }
        ],
    }
    assert loaded(spec).unmapped == [
        "containers[a].resources.limits.gpu",
        "containers[a]: a probe's scheme HTTPS, whose port is only connected to,",
        "containers[a].lifecycle",
        "spec.hostNetwork",
        "spec.activeDeadlineSeconds",
        "spec.affinity",
        "spec.imagePullSecrets",
    ]
