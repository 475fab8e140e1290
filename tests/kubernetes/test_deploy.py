# SPDX-License-Identifier: Apache-2.0
"""What `deploy/kubernetes` has is taken by a cluster."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.conftest import wait_for

from .beside import CONFIG, DEPLOY, beside
from .conftest import RUNTIME_CLASSES
from .control import Control
from .space import LIMIT


def test_a_cluster_takes_all_of_it(cluster: Control) -> None:
    """The set of nodes is empty: none has the label."""
    beside, nodes = (RUNTIME_CLASSES.with_name(f"{name}.yaml") for name in ("runtimeclass-beside", "daemonset"))
    cluster.kubectl("apply", "-f", RUNTIME_CLASSES)
    try:
        cluster.kubectl("apply", "--dry-run=server", "-f", beside)
        cluster.kubectl("apply", "-f", nodes)
        found = json.loads(
            cluster.kubectl("get", "-n", "kube-system", "daemonset", "hypercontainer-node", "-o", "json")
        )
        pod = found["spec"]["template"]["spec"]
        assert pod["nodeSelector"] == {"hypercontainer.io/node": "true"} and pod["hostPID"] is True
        assert pod["containers"][0]["volumeMounts"][0]["mountPropagation"] == "HostToContainer"
    finally:
        cluster.kubectl("delete", "--ignore-not-found", "-f", nodes)


def test_a_node_sets_itself_up(cluster: Control, tmp_path: Path) -> None:
    """The DaemonSet's pod, by a kubelet, containerd and runc; the node is itself again when that is taken away."""
    daemonset = RUNTIME_CLASSES.with_name("daemonset.yaml")
    with beside(cluster, 7, tmp_path / "node") as node:
        cluster.kubectl("apply", "-f", daemonset)
        try:
            cluster.kubectl("label", "node", node.name, "hypercontainer.io/node=true")
            ready = ("get", "-n", "kube-system", "daemonset", "hypercontainer-node", "-o",
                     "jsonpath={.status.numberReady}")  # fmt: skip
            try:
                wait_for(lambda: cluster.kubectl(*ready) == "1", "the DaemonSet's pod", LIMIT)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{node.account()}") from None
            pods = json.loads(cluster.kubectl("get", "-n", "kube-system", "pods", "-o", "json"))["items"]
            (pod,) = [p for p in pods if p["metadata"]["labels"].get("app") == "hypercontainer-node"]
            logs = cluster.kubectl("logs", "-n", "kube-system", pod["metadata"]["name"])
            assert "node.sh: installed in /opt/hypercontainer" in logs
            assert node.run("hyper-runtime") == "it runs\n"
            runtimes = node.run("cat", "/etc/containerd/config.toml")
            assert runtimes.startswith(CONFIG) and (DEPLOY / "containerd/hyper.toml").read_text() in runtimes
            node.run("test", "-e", "/etc/systemd/system/hyperd.service")
        finally:
            cluster.kubectl("delete", "-f", daemonset, f"--timeout={LIMIT:g}s")
        ours = ("get", "-n", "kube-system", "pods", "-l", "app=hypercontainer-node", "-o", "name")
        wait_for(lambda: not cluster.kubectl(*ours), "the end of the DaemonSet's pod", LIMIT)
        node.run("sh", "/opt/hypercontainer/payload/deploy/node/node.sh", "remove")
        assert node.run("cat", "/etc/containerd/config.toml") == CONFIG
        node.run("sh", "-c", "test ! -e /opt/hypercontainer && test ! -e /etc/systemd/system/hyperd.service")
