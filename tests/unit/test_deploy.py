# SPDX-License-Identifier: Apache-2.0
"""What `deploy/` has names what there is."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import time
import tomllib
from pathlib import Path

import yaml

from hypercontainer.cri.sandbox_request import HANDLERS
from hypercontainer.engine.doctor import _TOOLS
from hypercontainer.engine.metering.exposition import HELP
from hypercontainer.hyperd.config import Config, load
from hypercontainer.model.cluster import PROJECT, RUNTIME_CLASS_OF
from hypercontainer.model.specs import GUEST_OVERHEAD
from hypercontainer.oci.arguments import DEFAULT_ROOT
from hypercontainer.oci.translation import MEMORY, VCPUS
from hypercontainer.podfile.downward import quantity

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_runtime_classes_are_handlers_of_ours() -> None:
    classes = list(yaml.safe_load_all((DEPLOY / "kubernetes/runtimeclasses.yaml").read_text()))
    assert {c["handler"] for c in classes} == {name for name in HANDLERS if name}
    assert all(c["metadata"]["name"] == c["handler"] for c in classes)
    # A machine has what its guest needs, or the class's overhead where that is more: the scheduler counts no less.
    assert all(quantity(c["overhead"]["podFixed"]["memory"]) > GUEST_OVERHEAD for c in classes)


def test_settings_of_a_node_are_settings() -> None:
    found = load(DEPLOY / "systemd/hyperd.toml", {})
    assert (found.cri, found.cri_network, found.live_restore) == (True, "cni", True)


def test_the_kubelet_is_told_our_socket() -> None:
    told = yaml.safe_load((DEPLOY / "kubernetes/kubelet.yaml").read_text())
    assert told["containerRuntimeEndpoint"] == f"unix://{Config().cri_path}"


def test_the_unit_starts_hyperd() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "systemd/hyperd.service")
    assert unit["Service"]["ExecStart"].split()[0].endswith("/hyperd") and unit["Service"]["KillMode"] == "process"


def test_the_host_of_a_cloud_is_told_what_there_is() -> None:
    found = load(DEPLOY / "caas/hyperd.toml", {})
    assert found.live_restore and found.jail == found.control_groups == "on" and found.clients == {"*": []}
    assert found.console_listen and found.listen
    for name, program in (("hyperd.service", "/hyperd"), ("hyper-backup.service", "/usr/local/lib/hyper/backup")):
        unit = configparser.ConfigParser(strict=False, interpolation=None)
        unit.read(DEPLOY / "caas" / name)
        assert unit["Service"]["ExecStart"].split()[0].endswith(program)


def test_alerts_are_of_figures_that_there_are() -> None:
    rules = yaml.safe_load((DEPLOY / "caas/rules.yaml").read_text())["groups"][0]["rules"]
    named = {word for rule in rules for word in re.findall(r"hyper_[a-z_]+", rule["expr"])}
    backups = set(re.findall(r"^(hyper_backup_[a-z_]+) ", (DEPLOY / "caas/backup").read_text(), re.MULTILINE))
    assert named and backups and named <= HELP.keys() | backups


def backed_up(tmp_path: Path, script: str) -> int:
    """The status of a backup by a hyperctl that is this script."""
    (tmp_path / "hyperctl").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "hyperctl").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PLACE": str(tmp_path / "place"), "KEEP": "3",
                   "TEXTFILES": str(tmp_path / "textfiles")}  # fmt: skip
    return subprocess.run([DEPLOY / "caas/backup"], env=environment, check=False, timeout=30).returncode


_MAKES = '[ "$1 $2" = "backup create" ] && echo whole >"$3"'


def test_the_last_backups_are_kept(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    for day in range(10, 15):
        (place / f"hyper-202601{day}T030000Z.tar.zst").touch()
    (place / "mine").touch()
    (place / "hyper-20260115T030000Z.tar.zst.7.part").touch()
    assert backed_up(tmp_path, _MAKES) == 0
    left = sorted(p.name for p in place.iterdir() if p.name != ".lock")
    assert left[:2] == ["hyper-20260113T030000Z.tar.zst", "hyper-20260114T030000Z.tar.zst"]
    assert len(left) == 4 and left[-1] == "mine"


def test_a_backup_is_told_when_it_is_whole(tmp_path: Path) -> None:
    told = tmp_path / "textfiles"
    told.mkdir()
    assert backed_up(tmp_path, 'echo half >"$3.7.part"; exit 1') == 1
    assert list(told.iterdir()) == []
    before = int(time.time())
    assert backed_up(tmp_path, _MAKES) == 0
    [file] = told.iterdir()
    figures = dict(line.split() for line in file.read_text().splitlines() if not line.startswith("#"))
    assert file.name == "hyper_backup.prom" and file.stat().st_mode & 0o777 == 0o644
    assert before <= int(figures["hyper_backup_last_success_seconds"]) <= time.time()
    assert figures["hyper_backup_size_bytes"] == "6"
    assert [p for p in (tmp_path / "place").iterdir() if p.name.endswith(".part")] == []


def test_what_runs_pods_beside_runc_is_told_our_runtime() -> None:
    containerd = tomllib.loads((DEPLOY / "containerd/hyper.toml").read_text())
    told = containerd["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]
    crio = tomllib.loads((DEPLOY / "crio/10-hyper.conf").read_text())["crio"]["runtime"]["runtimes"]
    beside = yaml.safe_load((DEPLOY / "kubernetes/runtimeclass-beside.yaml").read_text())
    assert list(told) == list(crio) == [beside["handler"]]
    assert told["hyper"]["options"]["BinaryName"] == crio["hyper"]["runtime_path"] == "/usr/local/bin/hyper-runtime"
    assert crio["hyper"]["runtime_root"] == DEFAULT_ROOT
    assert set(crio["hyper"]["allowed_annotations"]) == {MEMORY, VCPUS}


def test_the_daemon_set_is_of_the_nodes_that_the_class_names() -> None:
    pod = yaml.safe_load((DEPLOY / "kubernetes/daemonset.yaml").read_text())["spec"]["template"]["spec"]
    beside = yaml.safe_load((DEPLOY / "kubernetes/runtimeclass-beside.yaml").read_text())
    assert pod["nodeSelector"] == beside["scheduling"]["nodeSelector"]


def test_the_image_has_what_hyperd_starts_and_compose_its_directories() -> None:
    dockerfile = (DEPLOY / "caas/Dockerfile").read_text()
    needed = {*_TOOLS.values(), "qemu-system-x86", "nftables", "iproute2", "passt", "busybox-static", "libseccomp2"}
    assert needed <= set(dockerfile.split())
    ((name, service),) = yaml.safe_load((DEPLOY / "caas/compose.yaml").read_text())["services"].items()
    places = {volume.rsplit(":/", 1)[-1].removesuffix(":ro") for volume in service["volumes"]}
    assert name == "hyperd" and {"var/lib/hyper", "run/hyper", "etc/hyper"} <= places
    assert service["privileged"] and service["network_mode"] == service["cgroup"] == "host"


def test_pods_of_projects_are_admitted_with_classes_that_there_are() -> None:
    policy, binding = yaml.safe_load_all((DEPLOY / "kubernetes/admission.yaml").read_text())
    classes = {
        c["metadata"]["name"] for c in yaml.safe_load_all((DEPLOY / "kubernetes/runtimeclasses.yaml").read_text())
    }
    first, _ = policy["spec"]["validations"]
    assert set(re.findall(r"'(hyper[a-z-]*)'", first["expression"])) == classes
    assert {v["expression"] for v in policy["spec"]["variables"]} >= {f"'{RUNTIME_CLASS_OF}'"}
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    [selected] = binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
    assert selected == {"key": PROJECT, "operator": "Exists"}
