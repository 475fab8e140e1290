# SPDX-License-Identifier: Apache-2.0
"""Verbs for a context that is a cluster of Kubernetes: containers are Pods there, of our runtime class.

A scheduler chooses the node, whose kubelet asks its hyperd (`hypercontainer.cri`).
"""

from __future__ import annotations

from collections.abc import Mapping

# What a verb of hyperd's is here; others are refused by name.
_VERBS = {
    "exec:exec_": "cluster.attached:exec_",
    "inspect:inspect": "cluster.listed:inspect",
    "groups:inspect_container": "cluster.listed:inspect",
    "listing:ps": "cluster.listed:ps",
    "lifecycle:rm": "cluster.listed:rm",
    "logs:logs": "cluster.listed:logs",
    "pods:pod": "cluster.listed:pod",
    "run:run": "cluster.attached:run",
    "system:version": "cluster.listed:version",
}


def verbs_of(verbs: Mapping[str, str]) -> dict[str, str]:
    """Verbs with the place of each."""
    return {name: _VERBS.get(place, "cluster.listed:missing") for name, place in verbs.items()}
