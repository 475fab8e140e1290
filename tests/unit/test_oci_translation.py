# SPDX-License-Identifier: Apache-2.0
"""What becomes of a bundle's configuration."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hypercontainer.errors import HyperError, NotFound, Unsupported
from hypercontainer.model.pods import PodPlan
from hypercontainer.model.specs import ContainerSpec, ExecSpec
from hypercontainer.oci import execs, mounts, sandbox, translation
from hypercontainer.oci.records import Record, Records
from hypercontainer.sys.proc import start_time

BIND = {"type": "bind", "source": "/etc/hostname", "destination": "/h", "options": ["rbind", "ro"]}
PROFILE = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}
NAMESPACES = [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]


def config(**fields: Any) -> dict[str, Any]:
    """A small one; `process` and `linux` are added to what there is."""
    process = {"args": ["sh", "-c", "true"], "cwd": "/w", "env": ["A=b"], "user": {"uid": 3, "gid": 4}}
    made: dict[str, Any] = {"process": process, "root": {"path": "rootfs"}, "linux": {"namespaces": NAMESPACES}}
    for key in ("process", "linux"):
        made[key] |= fields.pop(key, {})
    return made | fields


def spec(**fields: Any) -> ContainerSpec:
    """As hyperd reads it."""
    whole = config(**fields)
    translation.check(whole)
    body = translation.container_of(whole, Path("/b"), "/b/rootfs", id_="i", name="n", pod="p")
    return msgspec.json.decode(json.dumps(body), type=ContainerSpec)


def plan(interfaces: Any = (), **fields: Any) -> PodPlan:
    body = translation.pod_of(config(**fields), list(interfaces), name="n")
    return msgspec.json.decode(json.dumps(body), type=PodPlan)


@pytest.mark.parametrize(
    ("given", "field", "found"),
    [
        ({}, "entrypoint", ["sh", "-c", "true"]),
        ({}, "user", "3:4"),
        ({}, "workdir", "/w"),
        ({}, "env", ["A=b"]),
        ({}, "seccomp", "unconfined"),
        ({}, "masked_paths", []),
        ({}, "pid", "container"),
        ({}, "rootfs", "/b/rootfs"),
        ({"process": {"user": {"uid": 0, "gid": 0, "additionalGids": [7, 8]}}}, "groups", ["7", "8"]),
        ({"process": {"capabilities": {"bounding": ["CAP_KILL"]}}}, "cap_add", ["CAP_KILL"]),
        ({"process": {"capabilities": {"ambient": ["CAP_KILL"]}}}, "cap_ambient", ["CAP_KILL"]),
        ({"process": {"terminal": True}}, "tty", True),
        ({"process": {"terminal": True, "consoleSize": {"height": 5, "width": 6}}}, "console_size", (5, 6)),
        ({"process": {"noNewPrivileges": True}}, "no_new_privileges", True),
        ({"root": {"path": "rootfs", "readonly": True}}, "read_only", True),
        ({"linux": {"sysctl": {"net.ipv4.ip_forward": "1"}}}, "sysctls", {"net.ipv4.ip_forward": "1"}),
        ({"linux": {"maskedPaths": ["/proc/x"]}}, "masked_paths", ["/proc/x"]),
        ({"linux": {"readonlyPaths": ["/proc/y"]}}, "readonly_paths", ["/proc/y"]),
        ({"linux": {"seccomp": PROFILE}}, "seccomp_profile", json.dumps(PROFILE, separators=(",", ":"))),
        ({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}}, "seccomp_profile", ""),
        ({}, "seccomp_profile", ""),
        ({"linux": {"namespaces": [{"type": "pid", "path": "/proc/7/ns/pid"}]}}, "pid", "pod"),
        ({"linux": {"resources": {"devices": [{"allow": True, "access": "rwm"}]}}}, "privileged", True),
        ({"linux": {"resources": {"devices": [{"allow": False, "access": "rwm"}]}}}, "privileged", False),
        ({"annotations": {"a": "b"}}, "annotations", {"a": "b"}),
    ],
)  # fmt: skip
def test_fields(given: dict[str, Any], field: str, found: object) -> None:
    assert getattr(spec(**given), field) == found


def test_limits() -> None:
    resources = {"memory": {"limit": 1 << 30}, "cpu": {"quota": 50_000, "period": 100_000}, "pids": {"limit": 9}}
    found = spec(linux={"resources": resources}).resources
    assert (found.memory, found.cpus, found.pids) == (1 << 30, 0.5, 9)
    none = {"memory": {"limit": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}}
    found = spec(linux={"resources": none}).resources
    assert (found.memory, found.cpus, found.pids) == (0, 0, 0)
    assert translation.limits_of({"memory": {"limit": 4096}})["memory"] == 16 << 20
    assert translation.limits_of({"cpu": {"quota": 10**9}})["cpus"] == os.cpu_count()


def test_rlimits() -> None:
    unlimited = {"type": "RLIMIT_CORE", "soft": 0, "hard": (1 << 64) - 1}
    limits = [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}, unlimited]
    found = [(u.name, u.soft, u.hard) for u in spec(process={"rlimits": limits}).ulimits]
    assert found == [("nofile", 1, 2), ("core", 0, -1)]


def test_the_machine() -> None:
    found = plan(hostname="h", linux={"resources": {"memory": {"limit": 100 << 20}, "cpu": {"quota": 150_000}}})
    assert (found.hostname, found.memory, found.vcpus) == ("h", 148 << 20, min(2, os.cpu_count() or 1))
    assert (found.spec.network, found.spec.exit_policy, found.spec.pid) == ("none", "stop", "container")
    interface = {"namespace": "/run/netns/x", "device": "eth1", "addresses": ["10.0.0.2/24"], "gateway": "10.0.0.1"}
    found = plan([interface], annotations={translation.MEMORY: "300", translation.VCPUS: "1"})
    assert (found.memory, found.vcpus, found.spec.interfaces[0].device) == (300 << 20, 1, "eth1")
    with pytest.raises(HyperError, match="is no number"):
        plan(annotations={translation.MEMORY: "much"})


def test_mounts(tmp_path: Path) -> None:
    (tmp_path / "rel").mkdir()
    standard = [
        {"type": "proc", "destination": "/proc"}, {"type": "tmpfs", "destination": "/dev"},
        {"type": "sysfs", "destination": "/sys"}, {"type": "devpts", "destination": "/dev/pts"},
        {"type": "mqueue", "destination": "/dev/mqueue"}, {"type": "cgroup", "destination": "/sys/fs/cgroup"},
        {"type": "bind", "source": "/dev/shm", "destination": "/dev/shm/", "options": ["bind"]},
    ]  # fmt: skip
    options = ["size=4k", "mode=700", "uid=1", "noexec", "ro", "tmpcopyup"]
    own = [
        BIND, {"source": "rel", "destination": "/r", "options": ["bind"]},
        {"type": "tmpfs", "destination": "/t", "options": options},
        {"type": "bind", "source": "/etc/passwd", "destination": "/h"},
    ]  # fmt: skip
    found = mounts.mounts_of({"mounts": [*standard, *own]}, tmp_path)
    assert [(m["target"], m.get("source"), m["readOnly"]) for m in found] == [
        ("/h", "/etc/passwd", False), ("/r", str(tmp_path / "rel"), False), ("/t", None, True)
    ]  # fmt: skip
    assert (found[2]["size"], found[2]["mode"], found[2]["uid"], found[2]["exec"]) == (4096, 0o700, 1, False)


def test_the_size_of_shared_memory(tmp_path: Path) -> None:
    tmpfs = {"destination": "/dev/shm", "type": "tmpfs", "options": ["nosuid", "size=65536k"]}
    assert mounts.shm_size({"mounts": [tmpfs]}) == 64 << 20
    bound = {"destination": "/dev/shm", "type": "bind", "source": str(tmp_path), "options": ["bind"]}
    assert mounts.shm_size({"mounts": [bound]}) > 0 and mounts.shm_size({"mounts": [BIND]}) == 0
    assert plan(mounts=[tmpfs]).spec.shm_size == 64 << 20


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"process": {"args": []}}, "has no process"),
        ({"root": {}}, "no root.path"),
        ({"linux": {"uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}}, "no user namespaces"),
        ({"hooks": {"createContainer": [{"path": "x"}]}}, "the hook createContainer has no absolute path: 'x'"),
        ({"hooks": {"poststop": [{"path": "/x", "timeout": 0}]}}, "the hook /x has no time above 0: 0"),
        ({"linux": {"devices": [{"path": "/dev/fuse"}]}}, "the device /dev/fuse of this host"),
        ({"mounts": [{"type": "nfs", "destination": "/n"}]}, "a mount of the type 'nfs'"),
        ({"mounts": [{**BIND, "source": "/dev/null"}]}, "the device /dev/null of this host"),
        ({"mounts": [{**BIND, "source": "/there/is/none"}]}, "/there/is/none of this host: No such"),
        ({"mounts": [{**BIND, "options": ["bind", "rshared"]}]}, "cannot be propagated to this host"),
        ({"mounts": [{"type": "tmpfs", "destination": "/t", "options": ["size=x"]}]}, "options of its tmpfs"),
    ],
)  # fmt: skip
def test_what_is_refused(given: dict[str, Any], wrong: str) -> None:
    with pytest.raises(HyperError, match=wrong):
        spec(**given)


def test_pci_devices_of_the_host() -> None:
    """They are the machine's, by their groups; who may open all devices has not asked for them."""
    group, shared, all_ = {"path": "/dev/vfio/7"}, {"path": "/dev/vfio/vfio"}, [{"allow": True, "access": "rwm"}]
    assert plan(linux={"devices": [group, shared]}).spec.devices == ["/dev/vfio/7"]
    assert spec(linux={"devices": [group, shared]}).devices == ["/dev/vfio/7"]  # in another's machine: hyperd refuses
    own = translation.container_of(config(linux={"devices": [group]}), Path("/b"), "/r", id_="i", name="n", pod="")
    assert own["devices"] == []
    assert plan(linux={"devices": [group], "resources": {"devices": all_}}).spec.devices == []
    with pytest.raises(HyperError, match="the device /dev/vfio/vfio of this host"):
        spec(linux={"devices": [shared]})


def _record(records: Records, id_: str, pod: str, **fields: Any) -> Record:
    records.claim(id_)
    record = Record(id=id_, host="h", bundle="/b", rootfs="/r", container=f"c{id_}", pod=pod, owns_pod=True,
                    created="", **{"annotations": {}, "hooks": {}, **fields})  # fmt: skip
    records.put(record)
    return record


def _joins(**paths: str) -> dict[str, Any]:
    return {"linux": {"namespaces": [{**n, "path": paths.get(n["type"], "")} for n in NAMESPACES]}}


def test_whose_machine_it_shares(tmp_path: Path) -> None:
    records = Records(str(tmp_path / "r"))
    assert sandbox.joined(config(), records) is None
    _record(records, "one", "pod1", pid=os.getpid(), pid_started=start_time(os.getpid()))
    for type_, of in (("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"),
                      ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id")):  # fmt: skip
        found = sandbox.joined(config(annotations={type_: "container", of: "one"}), records)
        assert found and found.pod == "pod1"
        assert sandbox.joined(config(annotations={type_: "sandbox", of: "one"}), records) is None
        with pytest.raises(NotFound, match="the sandbox two of this container is not one of hyper-runtime's"):
            sandbox.joined(config(annotations={type_: "container", of: "two"}, **_joins(ipc="/run/ipc/x")), records)
        alone = config(annotations={type_: "container", of: "two"}, **_joins(network="/run/netns/x"))
        assert sandbox.joined(alone, records) is None  # a pod of podman's without an infra container
    own = f"/proc/{os.getpid()}/ns/"
    found = sandbox.joined(config(**_joins(network=f"{own}net", ipc=f"{own}ipc")), records)
    assert found and found.id == "one"
    assert sandbox.joined(config(**_joins(network="/run/netns/x")), records) is None
    with pytest.raises(Unsupported, match="the ipc namespace /proc/1/ns/ipc of this host"):
        sandbox.joined(config(**_joins(ipc="/proc/1/ns/ipc")), records)


@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts", "mount"])
def test_namespaces_of_this_host(kind: str, tmp_path: Path) -> None:
    rest = [n for n in NAMESPACES if n["type"] != kind]
    with pytest.raises(Unsupported, match=f"cannot use the {kind} namespace of this host"):
        sandbox.joined(config(linux={"namespaces": rest}), Records(str(tmp_path)))
    with pytest.raises(Unsupported, match="no user namespaces"):
        sandbox.joined(config(linux={"namespaces": [*NAMESPACES, {"type": "user"}]}), Records(str(tmp_path)))


def test_records(tmp_path: Path) -> None:
    records = Records(str(tmp_path / "r"))
    assert not list(records.all())
    record = _record(records, "a", "p", annotations={"x": "y"})
    assert records.get("a") == record and list(records.all()) == [record]
    with pytest.raises(HyperError, match="container with given ID already exists: a"):
        records.claim("a")
    for wrong in ("", "..", "a/b", "x y"):
        with pytest.raises(HyperError, match="invalid container id"):
            records.claim(wrong)
        with pytest.raises(NotFound, match="does not exist"):
            records.get(wrong)
    assert records.change(record, started=True) == records.get("a") != record
    (tmp_path / "r/half").mkdir()  # one that is just being made
    assert [r.id for r in records.all()] == ["a"]
    records.remove("a")
    records.remove("a")
    with pytest.raises(NotFound, match="container 'a' does not exist"):
        records.get("a")


def test_a_further_process() -> None:
    process = {"args": ["id"], "cwd": "/", "user": {"uid": 1, "gid": 2, "additionalGids": [3]},
               "capabilities": {"bounding": ["CAP_KILL"]}, "noNewPrivileges": True}  # fmt: skip
    found = msgspec.json.decode(json.dumps(execs._spec(process, terminal=True)), type=ExecSpec)
    assert (found.command, found.user, found.groups, found.capabilities) == (["id"], "1:2", ["3"], ["CAP_KILL"])
    assert found.tty and found.detach and found.no_new_privileges
    found = msgspec.json.decode(json.dumps(execs._spec({"args": ["id"]}, terminal=False)), type=ExecSpec)
    assert (found.user, found.groups, found.capabilities) == ("", None, None)  # the container's own
