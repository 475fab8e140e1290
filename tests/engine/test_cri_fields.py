# SPDX-License-Identifier: Apache-2.0
"""Each field of CRI's configurations is in force, passed over or refused, as docs/cri-fields.md says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hypercontainer.cri import api, container_request, node_files
from hypercontainer.cri.records import SandboxRecord
from hypercontainer.cri.sandbox_request import CriSettings, plan_of
from hypercontainer.errors import HyperError
from hypercontainer.model.specs import MIB
from hypercontainer.model.status import Pod
from hypercontainer.sys.mount_table import MountPoint

IN_FORCE, PASSED_OVER, REFUSED = "in force", "passed over", "refused"
DOCS = Path(__file__).parents[2] / "docs/cri-fields.md"
QUOTA = {"cpu_quota": 50_000, "cpu_period": 100_000}
# Values of fields for which one of their type alone says nothing; those that hold for a field's whole configuration.
VALUES: dict[str, dict[str, Any]] = {
    "stop_signal": {"stop_signal": api.SIGUSR1},
    "log_path": {"log_path": "web/0.log"},
    "envs.value": {"envs": [{"key": "A", "value": "b"}]},
    "mounts.container_path": {"mounts": [{"container_path": "/data", "host_path": "/tmp"}]},
    "mounts.host_path": {"mounts": [{"container_path": "/m", "host_path": "/etc"}]},
    "mounts.propagation": {"mounts": [{"host_path": "/tmp", "container_path": "/m", "propagation": 1}]},
    "mounts.image": {"mounts": [{"container_path": "/m", "image": {"image": "i"}}]},
    "mounts.image_sub_path": {"mounts": [{"container_path": "/m", "image": {"image": "i"}, "image_sub_path": "x"}]},
    "linux.resources.cpu_period": {"linux": {"resources": QUOTA | {"cpu_period": 200_000}}},
    "linux.resources.cpu_quota": {"linux": {"resources": QUOTA}},
    "linux.resources.memory_limit_in_bytes": {"linux": {"resources": {"memory_limit_in_bytes": 700 * MIB}}},
    "linux.resources.unified": {"linux": {"resources": {"unified": {"pids.max": "7"}}}},
    "linux.overhead.cpu_period": {"linux": {"resources": QUOTA | {"cpu_quota": 100_000}, "overhead": QUOTA}},
    "linux.overhead.cpu_quota": {"linux": {"resources": QUOTA | {"cpu_quota": 100_000}, "overhead": QUOTA}},
    "linux.overhead.memory_limit_in_bytes": {
        "linux": {"resources": {"memory_limit_in_bytes": 600 * MIB}, "overhead": {"memory_limit_in_bytes": 100 * MIB}}
    },
    "linux.resources.hugepage_limits": {
        "linux": {"resources": {"hugepage_limits": [{"page_size": "2MB", "limit": 1}]}}
    },
    "dns_config.servers": {"dns_config": {"servers": ["192.0.2.1"]}},
    "linux.sysctls": {"linux": {"sysctls": {"net.core.somaxconn": "9"}}},
    "port_mappings": {"port_mappings": [{"container_port": 80, "host_port": 8080}]},
}
_CONTEXT: dict[str, dict[str, Any]] = {
    "namespace_options.network": {"namespace_options": {"network": api.NODE}},
    "namespace_options.pid": {"namespace_options": {"pid": api.CONTAINER}},
    "namespace_options.ipc": {"namespace_options": {"ipc": api.NODE}},
    "namespace_options.target_id": {"namespace_options": {"pid": api.TARGET, "target_id": "x"}},  # `target`
    "namespace_options.userns_options": {"namespace_options": {"userns_options": {"gids": [{"length": 1}]}}},
    "selinux_options": {"selinux_options": {"level": "s0:c1"}, "namespace_options": {}},
    "run_as_user": {"run_as_user": {"value": 5}},
    "run_as_group": {"run_as_user": {"value": 5}, "run_as_group": {"value": 6}},
    "apparmor_profile": {"apparmor_profile": "localhost/x"},
    "apparmor": {"apparmor": {"profile_type": 2, "localhost_ref": "x"}},
    "seccomp": {"seccomp": {"profile_type": 0}},
    "seccomp_profile_path": {"seccomp_profile_path": "runtime/default"},
    "masked_paths": {"masked_paths": ["/proc/kcore"]},
    "readonly_paths": {"readonly_paths": ["/proc/sys"]},
    "capabilities.add_capabilities": {"capabilities": {"add_capabilities": ["BPF"]}},
    "capabilities.drop_capabilities": {"capabilities": {"drop_capabilities": ["KILL"]}},
    "capabilities.add_ambient_capabilities": {"capabilities": {"add_ambient_capabilities": ["KILL"]}},
}
VALUES |= {f"linux.security_context.{k}": {"linux": {"security_context": v}} for k, v in _CONTEXT.items()}
# Of the sandbox, where what is passed over has a value that another kind of message refuses.
OF_SANDBOX = {
    "linux.resources.memory_limit_in_bytes": {"linux": {"resources": {"memory_limit_in_bytes": 600 * MIB}}},
    "linux.resources.unified": {"linux": {"resources": {"unified": {"pids.max": "7"}}}},
    "linux.resources.cpu_period": {"linux": {"resources": {"cpu_quota": 100_000, "cpu_period": 50_000}}},
    "linux.resources.cpu_quota": {"linux": {"resources": {"cpu_quota": 150_000}}},
    "linux.security_context.namespace_options.target_id": {
        "linux": {"security_context": {"namespace_options": {"target_id": "x"}}}
    },
}
# What a configuration has besides, that a field's value can be seen, or is one.
BESIDE: dict[str, dict[str, Any]] = {
    "mounts": {"mounts": [{"container_path": "/m", "host_path": "/tmp"}]},
    "linux.security_context": {"linux": {"security_context": {"no_new_privs": False, "namespace_options": {}}}},
}


def documented(kind: str) -> dict[str, str]:
    """Fields, and what is done with them; a row may stand for all that is below it."""
    part = DOCS.read_text().split(f"## {kind}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([\w.]+)` \| (in force|passed over|refused) \|", part, re.M))


def fields(descriptor: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Those of a message and of the messages in it, but of maps."""
    for field in descriptor.fields:
        inner = field.message_type
        if inner and not inner.GetOptions().map_entry:
            yield from fields(inner, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field


def row_of(path: str, rows: dict[str, str]) -> str:
    found = [row for row in rows if path == row or path.startswith(f"{row}.")]
    assert len(found) == 1, f"{path} is in {len(found)} rows of {DOCS.name}"
    return found[0]


@pytest.mark.parametrize("kind", ["ContainerConfig", "PodSandboxConfig"])
def test_each_field_is_documented_and_no_other(kind: str) -> None:
    rows = documented(kind)
    assert {row_of(path, rows) for path, _ in fields(getattr(api, kind).DESCRIPTOR)} == set(rows)


def example(field: Any) -> Any:
    if field.message_type:  # a map
        return {"a": "1"}
    value = {field.CPPTYPE_STRING: "x", field.CPPTYPE_BOOL: True}.get(field.cpp_type, 1)
    return [value] if field.is_repeated else value


def set_in(descriptor: Any, path: str) -> dict[str, Any]:
    """A value for this field alone."""
    name, _, rest = path.partition(".")
    field = descriptor.fields_by_name[name]
    if not rest:
        return {name: example(field)}
    inner = set_in(field.message_type, rest)
    return {name: [inner] if field.is_repeated else inner}


def made(kind: str, given: dict[str, Any]) -> Any:
    """What hyperd makes of a configuration."""
    whole = getattr(api, kind)(metadata={"name": "n"}, **({"image": {"image": "i"}} if kind[0] == "C" else {}))
    for name in given.keys() & {"mounts"}:
        whole.ClearField(name)
    whole.MergeFrom(getattr(api, kind)(**given))
    if kind == "PodSandboxConfig":
        return plan_of(whole, "", CriSettings())
    pod = Pod(id="p" * 64, name="pod", created_at="", hostname="h", vcpus=1, memory=1024 * MIB)
    return container_request.spec_of(pod, SandboxRecord(name="pod", log_directory="/logs"), whole)


CASES = [
    (kind, path)
    for kind in ("ContainerConfig", "PodSandboxConfig")
    for path in dict.fromkeys(row_of(path, documented(kind)) for path, _ in fields(getattr(api, kind).DESCRIPTOR))
]


def given_for(kind: str, row: str) -> dict[str, Any]:
    values = VALUES | (OF_SANDBOX if kind == "PodSandboxConfig" else {})
    if row in values:
        return values[row]
    descriptor = getattr(api, kind).DESCRIPTOR
    path = next(p for p, _ in fields(descriptor) if p == row or p.startswith(f"{row}."))
    found = set_in(descriptor, path)
    if row.startswith("mounts."):
        found["mounts"][0] = {"container_path": "/m", "host_path": "/tmp"} | found["mounts"][0]
    return found


@pytest.mark.parametrize(("kind", "row"), CASES)
def test_what_is_done_with_a_field(kind: str, row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_files, "mount_table", lambda: [MountPoint("8:1", "/", "/")])
    four: Callable[[], int] = lambda: 4  # noqa: E731
    monkeypatch.setattr(container_request, "host_cpus", four)
    monkeypatch.setattr("hypercontainer.cri.sandbox_request.host_cpus", four)
    monkeypatch.setattr("hypercontainer.cri.sandbox_request.host_memory", lambda: 8192 * MIB)
    given, what = given_for(kind, row), documented(kind)[row]
    if what == REFUSED:
        with pytest.raises(HyperError, match="[a-z]{3,} [a-z]{2,}"):
            made(kind, given)
        return
    beside = next((v for prefix, v in BESIDE.items() if kind == "ContainerConfig" and row.startswith(prefix)), {})
    changed = msgspec.to_builtins(made(kind, given)) != msgspec.to_builtins(made(kind, beside))
    assert changed is (what == IN_FORCE)
