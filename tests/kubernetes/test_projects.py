# SPDX-License-Identifier: Apache-2.0
"""A control hyperd whose projects are namespaces of a cluster: quotas, pods, and the account of both."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import BIN, Daemon, launched, wait_for

from .control import Control
from .node import Node
from .space import LIMIT, Space, container

RUN = ("run", "-d", "--pull", "never", "--stop-timeout", "1")
SLEEP = ("busybox", "sleep", "100000")
_SETTINGS = """
[cluster]
kubeconfig = "{kubeconfig}"
tlscacert = "{ca}"
tlscert = "{cert}"
tlskey = "{key}"
"""
_PRICES = """
name = "standard"
currency = "EUR"
validFrom = "2023-01-01"
vcpuSecond = "0.001"
"""


@pytest.fixture
def hyper(cluster: Control, first: Node, tmp_path: Path) -> Iterator[Daemon]:
    """The control hyperd, which runs nothing itself."""
    cluster.kubectl("label", "--overwrite", "node", first.name, "hypercontainer.io/node=true")
    pair, settings = cluster.authority.sign("control"), tmp_path / "hyperd.toml"
    settings.write_text(
        _SETTINGS.format(kubeconfig=cluster.kubeconfig, ca=cluster.authority.cert, cert=pair.cert, key=pair.key)
    )
    program = (BIN / "hyperd", "--config", settings)
    with launched(
        tmp_path / "root", "--network", "user", prefix=("ip", "netns", "exec", cluster.name), program=program
    ) as daemon:
        yield daemon


def project(hyper: Daemon, cluster: Control, organisation: str, name: str) -> tuple[str, Space]:
    """Made; its id, and its namespace, once pods can be made there."""
    hyper.ctl("organisation", "create", organisation)
    id_ = hyper.out("project", "create", name, "--organisation", organisation).strip()
    found = Space(cluster, f"hyper-{id_}")
    account = ("get", "serviceaccount", "default", "-n", found.name)
    wait_for(lambda: cluster.tried(*account).returncode == 0, "the project's namespace", LIMIT)
    return id_, found


def used(of: Daemon, *words: str) -> dict[str, tuple[int, int]]:
    """Milliseconds and ended runs of pods, by project."""
    found: dict[str, Any] = json.loads(of.out("usage", "--by", "project", "--format", "json", *words))
    rows = [r for r in found["rows"] if r["kind"] == "pod" and r.get("project")]
    return {r["project"]: (r["quantity"], r.get("starts", 0)) for r in rows}


def ctl(cluster: Control, home: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """hyperctl, with contexts of its own."""
    environment = {**os.environ, "XDG_CONFIG_HOME": str(home), "HOME": str(home)}
    for name in ("HYPER_HOST", "HYPER_CONTEXT", "HYPER_PROJECT"):
        environment.pop(name, None)
    command = ["ip", "netns", "exec", cluster.name, BIN / "hyperctl", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)


def hard(space: Space) -> dict[str, str]:
    """Of its quota, as it is in force."""
    found: dict[str, str] = space.get("resourcequota", "hyper")["status"].get("hard", {})
    return found


def test_two_projects_and_what_they_used(cluster: Control, first: Node, hyper: Daemon, tmp_path: Path) -> None:
    (web_id, web), (shop_id, shop) = project(hyper, cluster, "blue", "web"), project(hyper, cluster, "red", "shop")
    hyper.ctl("project", "quota", "web", "pods=1", "memory=256m")
    wait_for(lambda: hard(web).get("pods") == "1", "the quota", LIMIT)
    ctl(cluster, tmp_path, "context", "create", "c", "--kubernetes", "--kubeconfig", cluster.kubeconfig)
    for name, id_ in (("web", web_id), ("red/shop", shop_id)):
        done = ctl(cluster, tmp_path, "--context", "c", "--project", name, *RUN, "--name", "one", *SLEEP)
        assert done.returncode == 0, (done.stderr, Space(cluster, f"hyper-{id_}").account())
    refused = ctl(cluster, tmp_path, "--context", "c", "--project", web_id, *RUN, "--name", "two", *SLEEP)
    assert refused.returncode == 125 and "exceeded quota" in refused.stderr, refused.stderr
    assert "no project none" in ctl(cluster, tmp_path, "--context", "c", "--project", "none", "ps").stderr
    listed = json.loads(hyper.out("cluster", "ps", "--format", "json"))
    assert [(p["project"], p["name"], p["status"], p["node"]) for p in listed] == [
        ("shop", "one", "Running", "node1"), ("web", "one", "Running", "node1"),
    ]  # fmt: skip
    assert "web has Pods in the cluster: one" in hyper.ctl("project", "rm", "web", check=False).stderr
    hyper.ctl("--project", "web", "cluster", "stop", "one")
    ctl(cluster, tmp_path, "--context", "c", "--project", "shop", "rm", "-f", "one")
    wait_for(lambda: not web.get("pods")["items"] + shop.get("pods")["items"], "the end of both pods", LIMIT)
    wait_for(lambda: not first.hyper.out("pod", "ls", "-q"), "the end of their machines", LIMIT)
    on_the_node = used(first.hyper)
    assert on_the_node[web_id][1] == on_the_node[shop_id][1] == 1
    expected = {"web": on_the_node[web_id], "shop": on_the_node[shop_id]}
    wait_for(lambda: used(hyper) == expected, f"the account of {expected}", LIMIT)
    assert used(hyper, "--organisation", "blue") == {"web": expected["web"]}
    assert not first.hyper.ctl("usage", "--check").returncode and not hyper.ctl("usage", "--check").returncode
    for name, space in (("web", web), ("shop", shop)):
        hyper.ctl("project", "rm", name)
        assert cluster.tried("get", "namespace", space.name).returncode


def test_an_account_at_zero(cluster: Control, first: Node, hyper: Daemon, tmp_path: Path) -> None:
    _, web = project(hyper, cluster, "blue", "web")
    (tmp_path / "prices.toml").write_text(_PRICES)
    hyper.ctl("billing", "prices", str(tmp_path / "prices.toml"))
    hyper.ctl("billing", "credit", "blue", "20")
    main = container("main", *SLEEP[1:])
    template = {
        "metadata": {"labels": {"app": "shop"}},
        "spec": {"runtimeClassName": "hyper", "terminationGracePeriodSeconds": 1, "containers": [main]},
    }  # fmt: skip
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "shop"}}, "template": template}
    web.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop"}, "spec": spec})
    web.kubectl("rollout", "status", "deployment/shop", f"--timeout={LIMIT:g}s")
    hyper.ctl("billing", "set", "blue", "--prepaid", "--grace", "0s")
    hyper.ctl("billing", "credit", "blue", "--", "-30")
    wait_for(lambda: hard(web).get("pods") == "0" and not web.get("pods")["items"], "the end of its pods", LIMIT)
    hyper.ctl("billing", "credit", "blue", "30")
    wait_for(lambda: [p["status"]["phase"] for p in web.pods("shop")] == ["Running"], "its pods again", LIMIT)
    web.kubectl("delete", "deployment", "shop")
    wait_for(lambda: web.get("pods")["items"] == [], "the end of its pods", LIMIT)
    wait_for(lambda: not first.hyper.out("pod", "ls", "-q"), "the end of their machines", LIMIT)
    hyper.ctl("project", "rm", "web")
