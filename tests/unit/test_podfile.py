# SPDX-License-Identifier: Apache-2.0
"""Podfiles: strictness, conversion, Kubernetes, compose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hypercontainer.engine.plan import check_plan, levels
from hypercontainer.errors import Conflict, HyperError, InvalidArgument
from hypercontainer.model.egress import EgressHost, EgressPolicy, EgressSecret
from hypercontainer.model.network import Egress, NetworkRequest
from hypercontainer.model.pods import PodPlan, VolumeRequest
from hypercontainer.model.specs import ContainerSpec, Dependency, HealthCheck, HttpCheck, PortMapping, TcpCheck, Ulimit
from hypercontainer.podfile import strict
from hypercontainer.podfile.convert import convert, files_to_fetch
from hypercontainer.podfile.document import Podfile
from hypercontainer.podfile.downward import quantity
from hypercontainer.podfile.generate import generate
from hypercontainer.podfile.load import load

EXAMPLES = Path(__file__).parents[2] / "examples"
PODFILES = Path(__file__).parents[1] / "podfiles"


def plan(fetched: dict[str, bytes] | None = None, **podfile: Any) -> PodPlan:
    return convert(strict.decode(podfile), fetched or {})


def container(**fields: Any) -> ContainerSpec:
    return plan(containers=[{"image": "i", **fields}]).containers[0]


# -- strictness ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("podfile", "says"),
    [
        ({"containres": []}, "podfile: containres: unknown key: did you mean 'containers'?"),
        ({"containers": [{"imgae": "x"}]}, "podfile: containers[0].imgae: unknown key: did you mean 'image'?"),
        ({"containers": [{"image": "x", "volumes": [{"path": "/x", "volme": "v"}]}]},
         "containers[0].volumes[0].volme: unknown key: did you mean 'volume'?"),
        ({"containers": [{"image": "x", "healthCheck": {"http": {"prot": 1}}}]},
         "containers[0].healthCheck.http.prot: unknown key: did you mean 'port'?"),
        ({"zzz": 1}, "podfile: zzz: unknown key: known are allow, allowHosts, containers, "),
        ({"containers": [{}]}, "podfile: containers[0]: 'image' is missing"),
        ({"containers": [{"image": 3}]}, "podfile: containers[0].image: must be text, not 3"),
        ({"resource": {"vcpu": "two"}}, "podfile: resource.vcpu: must be a whole number, not \"two\""),
        ({"restartPolicy": "sometimes"},
         "podfile: restartPolicy: 'sometimes' is none of always, never, onFailure, unlessStopped"),
        ({"type": "vm"}, "podfile: type: 'vm' is none of '', pod"),
        ({"id": "a", "ID": "b"}, "podfile: ID: the key is given twice"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(podfile: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        strict.decode(podfile)
    assert says in str(error.value)


def test_the_case_of_keys_does_not_matter() -> None:
    spelt = strict.decode(
        {"ID": "p", "restartpolicy": "always", "containers": [{"image": "i", "readonly": True, "StopSignal": "INT"}]}
    )
    assert (spelt.id, spelt.restart_policy, spelt.containers[0].read_only, spelt.containers[0].stop_signal) == (
        "p",
        "always",
        True,
        "INT",
    )
    assert strict.decode({"containers": None, "labels": None}) == Podfile()  # a key of YAML with nothing below it


def test_examples_obey_the_schema() -> None:
    schema = strict.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    import msgspec

    for path in (EXAMPLES / "web.yaml", EXAMPLES / "stack.yaml"):
        validator.validate(msgspec.yaml.decode(path.read_bytes()))
    for bad in ({"nosuch": 1}, {"containers": [{"name": "no image"}]}):
        assert list(validator.iter_errors(bad))


# -- conversion ------------------------------------------------------------------------


def test_devices_of_the_host() -> None:
    found = plan(devices=["00:04.0", "/dev/vfio/7"], containers=[{"image": "i"}])
    assert found.spec.devices == ["0000:00:04.0", "/dev/vfio/7"]
    with pytest.raises(InvalidArgument, match="podfile: devices: /dev/sda: a device of this host cannot be brought"):
        plan(devices=["/dev/sda"], containers=[{"image": "i"}])


def test_secrets_that_go_to_a_host() -> None:
    """The pod has none of them."""
    secrets = [{"name": "api", "content": "value\n"}, {"name": "other", "content": "x"}]
    injected = {"secret": "api", "host": "API.example.com", "header": "X-Key", "env": "TOKEN"}
    of: dict[str, Any] = {"containers": [{"image": "i"}], "secrets": secrets}
    found = plan(injectSecrets=[injected], **of)
    assert (found.secrets, found.spec.secrets) == ({"other": b"x"}, ["other"])
    expected = EgressSecret(name="TOKEN", host="api.example.com", header="X-Key", value=b"value")
    assert found.spec.egress == EgressPolicy(secrets=[expected])
    policy = plan(injectSecrets=[{"secret": "api", "host": "a.example", "port": 8443}], **of).spec.egress
    assert policy
    (plain,) = policy.secrets
    assert (plain.name, plain.port, plain.header) == ("api", 8443, "")
    mounted = [{"image": "i", "secrets": [{"secret": "api"}]}]
    for bad, says in (
        ({"injectSecrets": [{"secret": "none", "host": "a.example"}]}, "there is no secret 'none': define it"),
        ({"injectSecrets": [injected], "containers": mounted}, "container i has the secret 'api' itself"),
        ({"injectSecrets": [{"secret": "api", "host": "a.example", "port": 0}]}, "invalid port 0"),
        ({"injectSecrets": [{"secret": "api", "host": "10.0.0.1"}]}, "it is an address"),
    ):
        with pytest.raises(InvalidArgument, match=says):
            plan(**{**of, **bad})


def test_security_groups() -> None:
    assert plan(securityGroups=["web", "db"]).spec.security_groups == ["web", "db"]


def test_pod_fields() -> None:
    found = plan(
        id="p",
        hostname="h",
        labels={"a": "b"},
        resource={"vcpu": 2, "memory": 300},
        dns=["1.1.1.1"],
        dnsOptions=["rotate"],
        dnsSearch=["s"],
        hosts=[{"ip": "10.0.0.1", "names": ["n"]}],
        network="none",
        shmSize="8m",
        networks=[{"name": "n", "ip": "10.1.1.1", "ip6": "fd00::1", "mac": "0a:00:00:00:00:01", "aliases": ["x"]}],
        allow=["10.0.0.0/8:53"],
        allowHosts=["*.example.com:8443"],
        egress="none",
        ingressRate="1m",
        egressRate=5000,
        sysctls={"kernel.msgmax": 9000},
        exitPolicy="continue",
        ttl="1h30m",
        idleTimeout=60,
        driver="qemu",
        portmappingWhiteLists={"internalNetworks": ["10.0.0.0/8"], "externalNetworks": ["11.0.0.0/8"]},
        portmappings=[
            {"hostPort": "8000-8001", "containerPort": "80-81", "protocol": "udp", "hostIP": "127.0.0.1"},
            {"containerPort": 90},
        ],
        interfaces=[
            {
                "bridge": "br0",
                "ip": "10.0.0.2/24",
                "gateway": "10.0.0.1",
                "mac": "52:54:00:00:00:01",
                "mtu": 1400,
                "ifname": "t0",
                "id": "x",
            }
        ],
        secrets=[{"name": "s", "content": "value"}],
    )
    assert (found.name, found.hostname, found.vcpus, found.memory, found.labels) == ("p", "h", 2, 300 << 20, {"a": "b"})
    assert plan(id="p", resource={"size": "S4"}).size == "S4"
    s = found.spec
    assert (s.dns, s.dns_options, s.dns_search, s.network, s.shm_size) == (
        ["1.1.1.1"],
        ["rotate"],
        ["s"],
        "none",
        8 << 20,
    )
    assert s.networks == [
        NetworkRequest(name="n", ip="10.1.1.1", ip6="fd00::1", mac="0a:00:00:00:00:01", aliases=["x"])
    ]
    assert s.egress == EgressPolicy(hosts=[EgressHost(host="*.example.com", port=8443)])
    assert (s.allow, s.ingress_rate, s.egress_rate) == ([Egress(cidr="10.0.0.0/8", port=53)], 1_000_000, 5000)
    assert (
        s.sysctls == {"kernel.msgmax": "9000"}
        and s.exit_policy == "continue"
        and s.driver == "qemu"
        and s.hosts[0].names == ["n"]
    )
    assert (s.ttl, s.idle_timeout) == (5400, 60)
    assert s.white_lists.internal_networks == ["10.0.0.0/8"] and s.white_lists.external_networks == ["11.0.0.0/8"]
    assert s.ports == [
        PortMapping(container_port=80, host_port=8000, protocol="udp", host_ip="127.0.0.1"),
        PortMapping(container_port=81, host_port=8001, protocol="udp", host_ip="127.0.0.1"),
        PortMapping(container_port=90),
    ]
    (nic,) = s.interfaces
    assert (nic.bridge, nic.addresses, nic.gateway, nic.mtu, nic.ifname) == (
        "br0",
        ["10.0.0.2/24"],
        "10.0.0.1",
        1400,
        "t0",
    )
    assert (s.secrets, found.secrets) == (["s"], {"s": b"value"})


def test_container_fields() -> None:
    c = container(
        name="n",
        workdir="/w",
        command=["c"],
        entrypoint=["e"],
        envs=[{"env": "A", "value": 1}, {"env": "B", "value": True}],
        tty=True,
        user={"name": "u", "group": 5, "additionalGroups": [1, "two"]},
        stopSignal="INT",
        stopTimeout="1m",
        pid="container",
        init=True,
        labels={"l": "v"},
        readOnly=True,
        ulimits=[{"Name": "NOFILE", "Hard": 9, "Soft": 8}, {"name": "core", "hard": 0}],
        cache="none",
        restartPolicy="onFailure",
        maxRetries=4,
        sysctl={"a.b": 1},
        limits={"cpus": 0.5, "memory": "64m", "pids": 7},
        privileged=True,
        noNewPrivileges=True,
        stdin=True,
        aliases=["x"],
        capabilities={"add": ["NET_ADMIN"], "drop": ["CHOWN"]},
        logPath="/l",
        tmpfs=[{"path": "/t", "size": 2, "perm": "0700", "readOnly": True}],
        volumes=[{"path": "/v", "volume": "vol", "readOnly": True, "subPath": "s", "noCopy": True}],
    )
    assert (c.name, c.workdir, c.command, c.entrypoint, c.env) == ("n", "/w", ["c"], ["e"], ["A=1", "B=true"])
    assert (c.user, c.groups, c.tty, c.stdin, c.stop_signal, c.stop_timeout) == (
        "u:5",
        ["1", "two"],
        True,
        True,
        "INT",
        60,
    )
    assert c.ulimits == [Ulimit(name="nofile", soft=8, hard=9), Ulimit(name="core", soft=0, hard=0)]
    assert (c.labels, c.read_only, c.cache, c.sysctls, c.aliases) == ({"l": "v"}, True, "none", {"a.b": "1"}, ["x"])
    assert (c.restart.name, c.restart.max_retries, c.log.path) == ("on-failure", 4, "/l")
    assert (c.pid, c.run_init, container().pid, container().run_init) == ("container", True, "", False)
    assert (c.resources.cpus, c.resources.memory, c.resources.pids) == (0.5, 64 << 20, 7)
    assert (c.privileged, c.no_new_privileges, c.cap_add, c.cap_drop) == (True, True, ["NET_ADMIN"], ["CHOWN"])
    volume, tmpfs = c.mounts
    assert (volume.target, volume.source, volume.read_only, volume.sub_path, volume.copy_up) == (
        "/v",
        "vol",
        True,
        "s",
        False,
    )
    assert (tmpfs.type, tmpfs.target, tmpfs.size, tmpfs.mode, tmpfs.read_only) == ("tmpfs", "/t", 2 << 20, 0o700, True)


def test_health_fields() -> None:
    times = {"interval": "2s", "timeout": 3, "retries": 4, "startPeriod": "1m", "startInterval": "500ms"}
    http = {"http": {"port": 80, "path": "/p", "address": "10.0.0.1", "headers": {"H": "v"}}, **times}
    c = container(
        healthCheck=http,
        livenessCheck={"tcp": {"port": 1, "address": "::1"}},
        dependsOn=[{"container": "x", "condition": "healthy"}],
    )
    assert c.health == HealthCheck(
        http=HttpCheck(port=80, path="/p", address="10.0.0.1", headers={"H": "v"}),
        interval=2, timeout=3, retries=4, start_period=60, start_interval=0.5,
    )  # fmt: skip
    assert c.liveness and c.liveness.tcp == TcpCheck(port=1, address="::1")
    assert c.depends_on == [Dependency(container="x", condition="healthy")]
    shell, command = container(healthCheck={"shell": "a && b"}).health, container(healthCheck={"command": ["a"]}).health
    assert shell and shell.command == ["/bin/sh", "-c", "a && b"] and command and command.command == ["a"]


def test_volume_fields() -> None:
    found = plan(
        volumes=[
            {
                "name": "v",
                "source": "/s",
                "format": "qcow2",
                "fstype": "xfs",
                "cache": "none",
                "size": "1g",
                "readOnly": True,
            },
            {
                "name": "r",
                "source": "pool/image",
                "format": "rbd",
                "option": {"user": "u", "keyring": "k", "monitors": ["m:1"]},
            },
            {"name": "n", "source": "h:/p", "format": "nas", "mountOptions": {"port": 99, "soft": ""}},
        ],
        containers=[{"image": "i", "volumes": [{"path": "/d", "detail": {"name": "inline", "format": "tmpfs"}}]}],
    )
    v, r, n, inline = found.volumes
    assert v == VolumeRequest(
        name="v", source="/s", format="qcow2", fstype="xfs", cache="none", size=1 << 30, read_only=True
    )
    assert (r.options, r.monitors, n.options) == ({"user": "u", "keyring": "k"}, ["m:1"], {"port": "99", "soft": ""})
    assert (inline.name, inline.format, found.containers[0].mounts[0].source) == ("inline", "tmpfs", "inline")


def test_names_inheritance_and_defaults() -> None:
    found = plan(id="p", tty=True, restartPolicy="always", log={"type": "none"}, initContainers=[{"image": "i"}],
                 containers=[{"image": "reg/x/nginx:1"}, {"image": "i", "restartPolicy": "never"}])  # fmt: skip
    first, second, third = found.containers
    assert [c.name for c in found.containers] == ["p-i-0", "p-nginx-1", "p-i-2"]
    assert (first.init, first.restart.name, second.restart.name, third.restart.name) == (
        True,
        "on-failure",
        "always",
        "no",
    )
    assert all(c.tty and c.log.driver == "none" for c in found.containers)
    assert plan(containers=[]).name.startswith("pod-") and len(plan().name) == len("pod-") + 10


def test_legacy_ports_are_the_pods() -> None:
    found = plan(
        containers=[
            {"image": "i", "ports": [{"containerPort": 80, "hostPort": 8080, "servicePort": 1, "protocol": "udp"}]}
        ]
    )
    assert found.spec.ports == [PortMapping(container_port=80, host_port=8080, protocol="udp")]


def test_files() -> None:
    raw = {
        "files": [{"name": "f", "uri": "http://x/f"}, {"name": "b", "encoding": "base64", "content": "aGk="}],
        "containers": [
            {
                "image": "i",
                "files": [
                    {"path": "/a/", "filename": "f", "perm": "0640", "user": "root", "group": "7"},
                    {"path": "/b", "filename": "b", "perm": 420},
                    {"path": "/c", "detail": {"name": "d", "uri": "file:///x"}},
                ],
            }
        ],
    }
    assert [f.uri for f in files_to_fetch(strict.decode(raw))] == ["http://x/f", "file:///x"]
    a, b, c = plan({"http://x/f": b"1", "file:///x": b"2"}, **raw).containers[0].files
    assert (a.target, a.content, a.mode, a.uid, a.gid) == ("/a/f", b"1", 0o640, 0, 7)
    assert (b.content, b.mode, c.content) == (b"hi", 0o644, b"2")


@pytest.mark.parametrize(
    ("podfile", "says"),
    [
        ({"portmappings": [{"hostPort": 70000, "containerPort": 1}]}, "invalid port 70000"),
        ({"portmappings": [{"hostPort": "1-2", "containerPort": "1"}]}, "differ in length"),
        ({"containers": [{"image": "i", "files": [{"path": "/x", "filename": "none"}]}]}, "there is no file 'none'"),
        ({"containers": [{"image": "i", "files": [{"path": "/x", "detail": {"name": "d", "encoding": "base64",
                                                                             "content": "a"}}]}]}, "is not base64"),
        ({"containers": [{"image": "i", "files": [{"path": "/x", "perm": "0999", "detail": {"name": "d"}}]}]},
         "invalid permissions '0999'"),
        ({"containers": [{"image": "i", "files": [{"path": "/x", "user": "bob", "detail": {"name": "d"}}]}]},
         "invalid owner 'bob'"),
        ({"containers": [{"image": "i", "envs": [{"env": "A"}, {"env": "A"}]}]},
         "an environment variable is given twice"),
        ({"volumes": [{"name": "v"}, {"name": "v"}]}, "two volumes have the same name"),
        ({"log": {"config": {"nosuch": "1"}}}, "unknown log option"),
        ({"resource": {"memory": "lots"}}, "invalid size"),
        ({"containers": [{"image": "i", "stopTimeout": "soon"}]}, "invalid duration 'soon'"),
        ({"secrets": [{"name": "s", "env": "HOME"}]}, "only a command line can read"),
    ],
)  # fmt: skip
def test_bad_values(podfile: dict[str, Any], says: str) -> None:
    podfile.setdefault("containers", [{"image": "i"}])
    with pytest.raises(HyperError, match=says):
        plan(**podfile)


@pytest.mark.parametrize(
    ("podfile", "says"),
    [
        ({"containers": [{"image": "i", "name": "a"}, {"image": "i", "name": "a"}]}, "two containers are called 'a'"),
        ({"containers": [{"image": "i", "name": "a", "dependsOn": [{"container": "b"}]}]},
         "depends on 'b', which the pod does not have"),
        ({"containers": [{"image": "i", "name": "a", "dependsOn": [{"container": "b"}]},
                         {"image": "i", "name": "b", "dependsOn": [{"container": "a"}]}]}, "in a circle"),
        ({"containers": [{"image": "i", "secrets": [{"secret": "none"}]}]}, "there is no secret 'none'"),
        ({"secrets": [{"name": "s", "content": "x" * 600_000}]}, "secret 's' is larger than 500 KiB"),
        ({"hostname": "a b"}, "invalid host name"),
        ({"dns": ["not-an-ip"]}, "invalid IP address 'not-an-ip'"),
        ({"services": [{"serviceIP": "x", "servicePort": 1}]}, "invalid address 'x' of a service"),
        ({"portmappingWhiteLists": {"internalNetworks": ["10/99"]}}, "invalid network '10/99'"),
        ({"interfaces": [{"bridge": "b", "ip": "10.0.0.2/24"}, {"gateway": "1.1.1.1"}, {"gateway": "1.1.1.2"}]},
         "more than one interface has a gateway"),
        ({"interfaces": [{"bridge": "b", "ip": "nonsense"}]}, "invalid address 'nonsense' of an interface"),
        ({"containers": [{"image": "i", "healthCheck": {}}]}, "a health check needs one of command, http and tcp"),
        ({"containers": [{"image": "i", "volumes": [{"path": "relative", "volume": "v"}]}]},
         "invalid path in the container 'relative'"),
        ({"containers": [{"image": "i", "volumes": [{"path": "/a/../b", "volume": "v"}]}]},
         "invalid path in the container"),
        ({"containers": [{"image": "i", "tmpfs": [{"path": "/a"}, {"path": "/a/"}]}]}, "two mounts or files at /a/"),
        ({"resource": {"memory": 4}}, "the pod's memory is too small"),
    ],
)  # fmt: skip
def test_bad_plans(podfile: dict[str, Any], says: str) -> None:
    podfile.setdefault("containers", [{"image": "i"}])
    with pytest.raises((InvalidArgument, Conflict), match=says):
        check_plan(plan(**podfile))


def test_levels_follow_dependencies() -> None:
    from hypercontainer.model.status import Container, Process

    def made(name: str, *needs: str) -> Container:
        spec = ContainerSpec(image="i", name=name, depends_on=[Dependency(container=n) for n in needs])
        process = Process(args=["x"], env=[], cwd="/", user="", stop_signal=15)
        return Container(
            id=name,
            name=name,
            pod="p",
            created_at="",
            image="i",
            image_id="i",
            hostname="h",
            process=process,
            spec=spec,
        )

    order = levels([made("web", "app"), made("app", "db", "cache"), made("db"), made("cache")])
    assert [sorted(c.name for c in level) for level in order] == [["cache", "db"], ["app"], ["web"]]


# -- files of other kinds ----------------------------------------------------------------


def test_kubernetes() -> None:
    loaded = load(str(EXAMPLES / "kubernetes.yaml"))
    podfile = loaded.podfile
    assert loaded.unmapped == ["spec.nodeSelector"]
    assert (podfile.id, podfile.labels, podfile.restart_policy) == ("kube", {"app": "demo"}, "always")
    (init,), (server, sidecar) = podfile.init_containers, podfile.containers
    assert init.entrypoint and init.files[0].path == "/config/greeting" and init.volumes[0].no_copy
    assert (server.name, server.aliases, server.stop_timeout) == ("kube-server", ["server"], 1)
    assert {e.env: e.value for e in server.envs} == {"GREETING": "good morning", "POD": "kube"}
    assert server.health_check and server.health_check.http and server.liveness_check and server.liveness_check.tcp
    assert (server.limits.cpus, server.limits.memory) == (0.5, f"{64 << 20}b")
    assert (sidecar.user.name, sidecar.read_only, sidecar.no_new_privileges) == (65534, True, True)
    assert sidecar.secrets[0].path == "/token/value" and convert(podfile, {}).secrets == {
        "token.value": b"s3cret-token"
    }
    assert check_plan(convert(podfile, {})) is None


@pytest.mark.parametrize(("text", "value"), [("500m", 0.5), ("2", 2), ("1k", 1000), ("128Mi", 128 << 20), ("1G", 1e9)])
def test_quantities(text: str, value: float) -> None:
    assert quantity(text) == value


def test_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_NAME", "x")
    monkeypatch.setenv("SHOP_KEY", "k")
    loaded = load(str(EXAMPLES / "compose.yaml"), name="shop")
    store, front = loaded.podfile.containers
    assert loaded.unmapped == [] and loaded.podfile.secrets[0].content == "k"
    assert store.command and 'echo "x is open"' in store.command[2] and store.restart_policy == "unlessStopped"
    assert front.depends_on[0].condition == "healthy" and front.aliases == ["front"] and front.tmpfs[0].path == "/tmp"
    assert loaded.podfile.portmappings[0].host_port == 8083 and loaded.podfile.volumes[0].source == "shop_goods"
    assert check_plan(convert(loaded.podfile, {})) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("services: {a: {build: .}}", "service a: it has no image"),
        ("services: {a: {image: i, volumes: ['none:/x']}}", "the volume 'none' is not defined"),
        ("services: {a: {image: i, environment: {X: '${NOSUCHVAR:?give it}'}}}",
         "the variable NOSUCHVAR is not set: give it"),
        ("{", "is no JSON or YAML in line"),
        ("[]", "holds no podfile"),
        ("a: 1\n---\nb: 2", "has 2 documents and none is a Kubernetes Pod"),
        ("kind: Pod\nspec: {containers: [], volumes: [{name: v, csi: {}}]}", "volume 'v': csi has no counterpart here"),
        ("kind: Pod\nspec: {containers: [], volumes: [{name: v, configMap: {name: c}}]}",
         "the file has no ConfigMap 'c'"),
        ("secrets: [{name: s}]", "needs one of content, file and env"),
        ("secrets: [{name: s, env: NOSUCHVAR}]", "the variable NOSUCHVAR is not set"),
        ("secrets: [{name: s, file: nosuch}]", "cannot read nosuch"),
        ("containers: [{image: i, seccompProfile: nosuch}]", "the seccomp profile nosuch cannot be read"),
        ("kind: Pod\nspec: {containers: [{name: a, image: i, securityContext: {seccompProfile: {type: Localhost}}}]}",
         "names no file"),
    ],
)  # fmt: skip
def test_bad_files(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(InvalidArgument) as error:
        load(str(path), name="p")
    assert says in str(error.value)


def test_secrets_come_from_files_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "from-env")
    (tmp_path / "key").write_text("from-file")
    path = tmp_path / "pod.yaml"
    path.write_text("secrets: [{name: e, env: A_SECRET}, {name: f, file: key}, {name: c, content: here}]")
    assert [s.content for s in load(str(path)).podfile.secrets] == ["from-env", "from-file", "here"]


def test_what_is_generated_can_be_read(tmp_path: Path) -> None:
    publish = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    for as_json in (True, False):
        text = generate(["nginx:1", "reg/nginx"], name="made", publish=publish, as_json=as_json)
        path = tmp_path / f"made{as_json}"
        path.write_text(text)
        podfile = load(str(path)).podfile
        assert [c.name for c in podfile.containers] == ["made-nginx", "made-nginx-1"] and podfile.portmappings[
            0
        ].host_port == 8080
        assert not as_json or json.loads(text)["id"] == "made"


def test_the_rebuilt_podfiles_decode() -> None:
    files = sorted(PODFILES.iterdir())
    assert len(files) >= 16


@pytest.mark.parametrize(
    "text",
    [
        "containers: [{name: c, image: i, seccompProfile: own.json}]",
        "services: {c: {image: i, security_opt: ['seccomp:own.json']}}",
        "kind: Pod\nspec: {containers: [{name: c, image: i, securityContext: {seccompProfile: "
        "{type: Localhost, localhostProfile: own.json}}}]}",
        "kind: Pod\nspec: {securityContext: {seccompProfile: {type: Localhost, localhostProfile: own.json}}, "
        "initContainers: [{name: c, image: i}], containers: []}",
    ],
    ids=["podfile", "compose", "container of a Pod", "a Pod's"],
)
def test_a_seccomp_profile_is_a_file_beside_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "own.json").write_text('{"defaultAction":"SCMP_ACT_ALLOW"}')
    (tmp_path / "file.yaml").write_text(text)
    (container,) = convert(load(str(tmp_path / "file.yaml"), name="p").podfile, {}).containers
    assert (container.seccomp, container.seccomp_profile) == ("default", '{"defaultAction":"SCMP_ACT_ALLOW"}')


@pytest.mark.parametrize(
    "text",
    [
        "containers: [{image: i, volumes: [{path: /d, propagation: rslave, detail: {name: v, source: /tmp}}]}]",
        "services: {c: {image: i, volumes: ['/tmp:/d:rslave']}}",
        "services: {c: {image: i, volumes: [{type: bind, source: /tmp, target: /d, bind: {propagation: slave}}]}}",
        "kind: Pod\nspec: {volumes: [{name: v, hostPath: {path: /tmp}}], containers: [{name: c, image: i, "
        "volumeMounts: [{name: v, mountPath: /d, mountPropagation: HostToContainer}]}]}",
    ],
    ids=["podfile", "compose", "compose in full", "Pod"],
)
def test_mounts_of_the_host_that_come_later(tmp_path: Path, text: str) -> None:
    (tmp_path / "file.yaml").write_text(text)
    (container,) = convert(load(str(tmp_path / "file.yaml"), name="p").podfile, {}).containers
    assert [(m.target, m.propagation) for m in container.mounts] == [("/d", "rslave")]


@pytest.mark.parametrize(
    "text",
    [
        "services: {c: {image: i, volumes: ['/tmp:/d:rshared']}}",
        "kind: Pod\nspec: {volumes: [{name: v, hostPath: {path: /tmp}}], containers: [{name: c, image: i, "
        "volumeMounts: [{name: v, mountPath: /d, mountPropagation: Bidirectional}]}]}",
    ],
    ids=["compose", "Pod"],
)
def test_mounts_of_a_container_do_not_come_to_the_host(tmp_path: Path, text: str) -> None:
    (tmp_path / "file.yaml").write_text(text)
    with pytest.raises(InvalidArgument, match="/d: what is mounted in a virtual machine does not come to this host"):
        load(str(tmp_path / "file.yaml"), name="p")
