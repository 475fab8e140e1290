# SPDX-License-Identifier: Apache-2.0
"""What `deploy/kubernetes` has is taken by a cluster."""

from __future__ import annotations

import json

from .conftest import RUNTIME_CLASSES
from .control import Control


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
