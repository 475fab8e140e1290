# SPDX-License-Identifier: Apache-2.0
"""What `deploy/` has names what there is."""

from __future__ import annotations

import configparser
import tomllib
from pathlib import Path

import yaml

from hypercontainer.cri.sandbox_request import HANDLERS
from hypercontainer.hyperd.config import Config, load
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
