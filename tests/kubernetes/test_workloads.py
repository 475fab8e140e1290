# SPDX-License-Identifier: Apache-2.0
"""What Kubernetes makes of pods: Deployments and Services, evictions, nodes that fail, fill and empty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import wait_for

from .control import Control
from .node import Node, node
from .space import LIMIT, Space, container, pod

SERVE = "mkdir /w; echo {word} $(hostname) > /w/index.html; exec httpd -f -p 8080 -h /w"
READY = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 5}


def deployment(name: str, replicas: int, word: str = "one", **spec: Any) -> dict[str, Any]:
    """Servers, each of which says a word and its name."""
    server = container("main", "sh", "-c", SERVE.format(word=word), readinessProbe=READY)
    made = pod(name, server, **spec)
    template = {"metadata": made["metadata"], "spec": made["spec"]}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template,
                 "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}},
    }  # fmt: skip


def rolled_out(here: Space, name: str) -> None:
    here.kubectl("rollout", "status", f"deployment/{name}", f"--timeout={LIMIT:g}s")


def answers(here: Space, name: str, on: Node) -> set[str]:
    """Of all endpoints of a service, asked from a node."""
    subsets = here.get("endpoints", name).get("subsets") or []
    found = [a["ip"] for s in subsets for a in s.get("addresses") or []]
    return {on.run("curl", "-s", "-m", "20", f"http://{ip}:8080/").strip() for ip in found}


def test_a_deployment_and_its_service(here: Space, first: Node) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
               "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}}  # fmt: skip
    here.apply(deployment("web", 3), service)
    rolled_out(here, "web")
    before = {f"one {p['metadata']['name']}" for p in here.pods("web")}
    wait_for(lambda: len(answers(here, "web", first)) == 3, "three endpoints", LIMIT)
    assert answers(here, "web", first) == before and len(before) == 3
    here.apply(deployment("web", 3, word="two"))
    rolled_out(here, "web")
    wait_for(lambda: len(here.pods("web")) == 3, "the end of the pods before", LIMIT)
    wait_for(lambda: len(answers(here, "web", first)) == 3, "three endpoints", LIMIT)
    assert all(answer.startswith("two ") for answer in answers(here, "web", first))
    here.kubectl("scale", "deployment/web", "--replicas=1")
    wait_for(lambda: len(here.pods("web")) == 1, "the end of two pods", LIMIT)


@pytest.mark.parametrize("where", ["volume", "disk"])
def test_who_writes_more_than_allowed_is_evicted(here: Space, where: str) -> None:
    """By the kubelet, which reads how much the container's own disk, and the pod's volumes, hold."""
    script = "dd if=/dev/zero of=/{}/x bs=1M count=40 2>/dev/null; exec sleep 100000"
    if where == "volume":
        mounts = [{"name": "v", "mountPath": "/v"}]
        writer = container("main", "sh", "-c", script.format("v"), volumeMounts=mounts)
        here.apply(pod("full", writer, volumes=[{"name": "v", "emptyDir": {"sizeLimit": "16Mi"}}]))
    else:
        limits = {"limits": {"ephemeral-storage": "16Mi"}}
        here.apply(pod("full", container("main", "sh", "-c", script.format("var"), resources=limits)))
    assert here.until_phase("full", "Failed")["status"]["reason"] == "Evicted"


def test_a_node_whose_hyperd_and_kubelet_are_killed(here: Space, first: Node) -> None:
    """Its pods go on, are the same as before, and are managed again."""
    count = "n=0; while :; do n=$((n+1)); echo $n > /count; sleep 1; done"
    here.apply(pod("counter", container("main", "sh", "-c", count)))
    here.until_ready("counter")
    before = here.pod("counter")["status"]["containerStatuses"][0]["containerID"]
    wait_for(lambda: int(here.exec("counter", "cat", "/count") or 0) > 1, "a first count")
    first.kill_kubelet()
    first.kill_hyperd()
    first.start_hyperd()
    first.start_kubelet()
    first.ready()
    asked = ("-n", here.name, "exec", "counter", "-c", "main", "--", "true")
    wait_for(lambda: here.cluster.tried(*asked).returncode == 0, "a kubelet that has heard of its pods")
    seen = int(here.exec("counter", "cat", "/count"))
    wait_for(lambda: int(here.exec("counter", "cat", "/count") or 0) > seen, "it counts on")
    here.apply(pod("later", container("main", "sleep", "100000")))
    here.until_ready("later")
    status = here.pod("counter")["status"]["containerStatuses"][0]
    assert (status["containerID"], status["restartCount"]) == (before, 0)
    here.kubectl("delete", "pod", "counter", "later", f"--timeout={LIMIT:g}s")


@pytest.fixture
def second(cluster: Control, first: Node, tmp_path: Path) -> Iterator[Node]:
    with node(cluster, 2, tmp_path / "2") as found:
        first.reach(found)
        found.reach(first)
        yield found
        cluster.kubectl("delete", "node", found.name)


def nodes_of(here: Space, name: str) -> list[str]:
    return sorted(p["spec"].get("nodeName", "") for p in here.pods(name) if not p["metadata"].get("deletionTimestamp"))


def test_two_nodes(second: Node, here: Space, first: Node) -> None:
    """The scheduler spreads, pods reach each other, and a node that is drained empties."""
    spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
              "labelSelector": {"matchLabels": {"app": "web"}}}  # fmt: skip
    here.apply(deployment("web", 4, topologySpreadConstraints=[spread]))
    rolled_out(here, "web")
    assert nodes_of(here, "web") == ["node1", "node1", "node2", "node2"]
    one, other = (next(p for p in here.pods("web") if p["spec"]["nodeName"] == n) for n in ("node1", "node2"))
    page = here.exec(one["metadata"]["name"], "wget", "-qO-", f"http://{other['status']['podIP']}:8080/")
    assert page == f"one {other['metadata']['name']}\n"
    here.cluster.kubectl("drain", "node2", "--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={LIMIT:g}s")
    rolled_out(here, "web")
    wait_for(lambda: nodes_of(here, "web") == ["node1"] * 4, "all pods on the other node", LIMIT)
    wait_for(lambda: not second.hyper.out("pod", "ls", "-q"), "an empty node", LIMIT)
