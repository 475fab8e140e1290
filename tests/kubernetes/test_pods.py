# SPDX-License-Identifier: Apache-2.0
"""Pods of a real kubelet: what they mount, how they begin and end, what a person does with them."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import wait_for

from .node import Node
from .space import LIMIT, Space, container, pod

SLEEP = ("sleep", "100000")


def status_of(found: Any, name: str = "main") -> Any:
    """A container's."""
    listed = [*found["status"].get("containerStatuses", []), *found["status"].get("initContainerStatuses", [])]
    return next((s for s in listed if s["name"] == name), {"state": {}, "restartCount": 0})


def test_a_pod_runs_to_its_end(here: Space, first: Node) -> None:
    here.apply(pod("good", container("main", "echo", "hello"), restartPolicy="Never"),
               pod("bad", container("main", "sh", "-c", "exit 3"), restartPolicy="Never"))  # fmt: skip
    assert here.until_phase("good", "Succeeded", "Failed")["status"]["phase"] == "Succeeded"
    bad = here.until_phase("bad", "Succeeded", "Failed")
    assert status_of(bad)["state"]["terminated"]["exitCode"] == 3
    assert here.kubectl("logs", "good") == "hello\n"


def test_a_program_that_is_not_there(here: Space) -> None:
    here.apply(pod("none", container("main", "/no/such/program"), restartPolicy="Never"))
    ended = status_of(here.until_phase("none", "Failed"))["state"]["terminated"]
    assert ended["reason"] in ("StartError", "ContainerCannotRun") and "/no/such/program" in ended["message"]


def test_what_it_mounts(here: Space, first: Node) -> None:
    on_node = first.place / "host"
    on_node.mkdir()
    (on_node / "word").write_text("of the node\n")
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"key": "value"}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hidden"}, "stringData": {"word": "secret"}}
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600, "audience": "someone"}}
    volumes = [
        {"name": "config", "configMap": {"name": "settings"}},
        {"name": "secret", "secret": {"secretName": "hidden", "defaultMode": 0o400}},
        {"name": "token", "projected": {"sources": [token, {"downwardAPI": {"items": [
            {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}},
        {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
        {"name": "node", "hostPath": {"path": str(on_node), "type": "Directory"}},
        {"name": "file", "hostPath": {"path": str(on_node / "word"), "type": "File"}},
    ]  # fmt: skip
    mounts = [{"name": v["name"], "mountPath": f"/m/{v['name']}"} for v in volumes]
    mounts[-2]["readOnly"] = True
    part = {"name": "disk", "mountPath": "/m/part", "subPath": "below"}
    writer = container("writer", "sh", "-c", "echo shared > /m/disk/word; echo part > /m/part/word; exec sleep 100000",
                       volumeMounts=[*mounts, part])  # fmt: skip
    env = [{"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "key"}}}]
    here.apply(settings, secret, pod("mounts", container("main", *SLEEP, volumeMounts=mounts, env=env), writer,
                                     volumes=volumes))  # fmt: skip
    here.until_ready("mounts")
    wait_for(lambda: here.exec("mounts", "ls", "/m/disk").split() == ["below", "word"], "the other container's file")
    script = "cat /m/config/key /m/secret/word /m/token/name /m/disk/word /m/node/word /m/file; echo $KEY"
    said = here.exec("mounts", "sh", "-c", script)
    assert said == "valuesecretmountsshared\nof the node\nof the node\nvalue\n"
    assert here.exec("mounts", "stat", "-Lc", "%a", "/m/secret/word") == "400\n"
    assert here.exec("mounts", "cat", "/m/disk/below/word") == "part\n"
    assert here.exec("mounts", "cat", "/m/token/token").count(".") == 2
    assert "Read-only" in here.exec("mounts", "sh", "-c", "touch /m/node/x 2>&1 || true")
    here.exec("mounts", "sh", "-c", "echo changed > /m/file")
    assert (on_node / "word").read_text() == "changed\n"
    assert here.exec(
        "mounts", "sh", "-c", "dd if=/dev/zero of=/m/memory/x bs=1M count=4 2>/dev/null; wc -c </m/memory/x"
    )


def test_what_the_node_mounts_later(here: Space, first: Node) -> None:
    """As CSI's drivers do; the pod has it while it is there, and the node can unmount it."""
    below = first.place / "later/below"
    below.mkdir(parents=True)
    volume = {"name": "node", "hostPath": {"path": str(below.parent), "type": "Directory"}}
    mounts = [{"name": "node", "mountPath": "/node", "mountPropagation": "HostToContainer"}]
    script = (
        "until [ -e /node/below/word ]; do usleep 100000; done; cat /node/below/word; "
        "until [ ! -e /node/below/word ]; do usleep 100000; done; echo gone"
    )
    here.apply(pod("later", container("main", "sh", "-c", script, volumeMounts=mounts), volumes=[volume],
                   restartPolicy="Never"))  # fmt: skip
    here.until_ready("later")
    first.run("mount", "-t", "tmpfs", "none", below)
    first.run("sh", "-c", f"echo hello >{below}/written; mv {below}/written {below}/word")
    wait_for(lambda: here.kubectl("logs", "later") == "hello\n", "what was mounted", LIMIT)
    first.run("umount", below)
    here.until_phase("later", "Succeeded", "Failed")
    assert here.kubectl("logs", "later") == "hello\ngone\n"


def test_a_seccomp_profile_of_the_node(here: Space, first: Node) -> None:
    """From where a kubelet looks for it; one that is not there is said."""
    refused = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    (first.place / "own.json").write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refused]}))
    first.run("mkdir", "-p", "/var/lib/kubelet/seccomp")
    first.run("cp", first.place / "own.json", "/var/lib/kubelet/seccomp/")
    for name in ("own", "none"):
        profile = {"seccompProfile": {"type": "Localhost", "localhostProfile": f"{name}.json"}}
        here.apply(pod(name, container("main", "sh", "-c", "mkdir /x; grep Seccomp: /proc/self/status"),
                       securityContext=profile, restartPolicy="Never"))  # fmt: skip
    here.until_phase("own", "Succeeded", "Failed")
    said = here.kubectl("logs", "own")
    assert "can't create directory '/x': Operation not permitted" in said and said.endswith("Seccomp:\t2\n")
    waiting = ("get", "pod", "none", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.message}")
    wait_for(lambda: "none.json" in here.kubectl(*waiting), "the profile that is not there", LIMIT)


def test_containers_before_and_beside_it(here: Space) -> None:
    volumes = [{"name": "v", "emptyDir": {}}]
    mounts = [{"name": "v", "mountPath": "/v"}]
    server = "mkdir /w; cp /v/word /w/; exec httpd -f -p 8080 -h /w"
    here.apply(
        pod(
            "several",
            container("main", "sh", "-c", "until wget -qO /v/got localhost:8080/word; do :; done; exec sleep 100000",
                      volumeMounts=mounts),
            container("beside", "sh", "-c", server, volumeMounts=mounts),
            initContainers=[
                container("one", "sh", "-c", "echo first > /v/word", volumeMounts=mounts),
                container("two", "sh", "-c", "echo second >> /v/word", volumeMounts=mounts),
            ],
            volumes=volumes, shareProcessNamespace=True,
        )
    )  # fmt: skip
    here.until_ready("several")
    got = ("sh", "-c", "cat /v/got 2>/dev/null || true")  # it is there once the server is
    wait_for(lambda: here.exec("several", *got) == "first\nsecond\n", "what the one beside serves", LIMIT)
    assert "httpd" in here.exec("several", "ps")


def test_probes(here: Space) -> None:
    ready = {"exec": {"command": ["cat", "/ready"]}, "periodSeconds": 1}
    alive = {
        "httpGet": {"path": "/alive", "port": 8080},
        "periodSeconds": 1,
        "failureThreshold": 2,
        "timeoutSeconds": 5,
    }
    started = {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 60}
    server = "mkdir -p /w; echo yes > /w/alive; exec httpd -f -p 8080 -h /w"
    here.apply(pod("probed", container("main", "sh", "-c", server, readinessProbe=ready, livenessProbe=alive,
                                       startupProbe=started)))  # fmt: skip
    here.until("probed", "started", lambda p: status_of(p).get("started"))
    assert not status_of(here.pod("probed"))["ready"]
    here.exec("probed", "touch", "/ready")
    here.until_ready("probed")
    here.exec("probed", "rm", "/w/alive")
    here.until("probed", "restarted", lambda p: status_of(p)["restartCount"] == 1)


def test_more_memory_than_it_may_use(here: Space) -> None:
    script = "exec sh -c 'x=a; while :; do x=$x$x; done'"
    limits = {"limits": {"memory": "32Mi"}}
    here.apply(pod("greedy", container("main", "sh", "-c", script, resources=limits), restartPolicy="Never"))
    ended = status_of(here.until_phase("greedy", "Failed", "Succeeded"))["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


def test_logs_exec_cp_and_forwarding(here: Space, first: Node, tmp_path: Path) -> None:
    script = "echo begun; until [ -e /go ]; do :; done; echo went; exec httpd -f -p 8080 -h /"
    here.apply(pod("used", container("main", "sh", "-c", script)))
    here.until_ready("used")
    command = here.cluster.command("-n", here.name, "logs", "-f", "used")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        timer = threading.Timer(LIMIT, follower.kill)
        timer.start()
        assert follower.stdout.readline() == "begun\n"
        (tmp_path / "go").write_text("carried\n")
        here.kubectl("cp", str(tmp_path / "go"), "used:/go", "-c", "main")
        assert follower.stdout.readline() == "went\n"
        follower.kill()
        timer.cancel()
    typed = subprocess.run(
        ["script", "-qec", " ".join(map(str, here.cluster.command("-n", here.name, "exec", "-it", "used", "--", "sh"))),
         "/dev/null"],
        input="tty; exit 7\n", capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert "/dev/pts/" in typed.stdout and typed.returncode
    here.kubectl("cp", "used:/go", str(tmp_path / "back"), "-c", "main")
    assert (tmp_path / "back").read_text() == "carried\n"
    forward = here.cluster.command("-n", here.name, "port-forward", "used", "18080:8080")
    with subprocess.Popen(forward, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        timer = threading.Timer(LIMIT, process.kill)
        timer.start()
        assert "Forwarding from 127.0.0.1:18080" in process.stdout.readline()
        fetch = ["ip", "netns", "exec", here.cluster.name, "curl", "-s", "-m", "20", "http://127.0.0.1:18080/go"]
        assert subprocess.run(fetch, capture_output=True, text=True, check=True).stdout == "carried\n"
        process.kill()
        timer.cancel()


@pytest.mark.parametrize(
    ("spec", "word"),
    [({"hostNetwork": True}, "network namespace of the node"), ({"hostPID": True}, "pid namespace of the node")],
)
def test_what_no_virtual_machine_has_is_refused(here: Space, spec: dict[str, Any], word: str) -> None:
    here.apply(pod("refused", container("main", *SLEEP), **spec))
    wait_for(lambda: word in json.dumps(here.get("events")), "the reason among the events", LIMIT)
