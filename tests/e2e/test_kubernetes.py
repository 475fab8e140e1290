# SPDX-License-Identifier: Apache-2.0
"""A Kubernetes Pod's security and environment, as its containers see them; files that hyperd must refuse."""

from __future__ import annotations

from pathlib import Path

from .conftest import Daemon
from .test_pods import pods

__all__ = ["pods"]

POD = """
kind: ConfigMap
metadata: {name: settings}
data: {key: value}
---
kind: Pod
metadata: {name: guarded}
spec:
  restartPolicy: Never
  securityContext: {runAsUser: 1000, runAsGroup: 3000, fsGroup: 2000, runAsNonRoot: true}
  volumes:
    - {name: scratch, emptyDir: {}}
    - {name: memory, emptyDir: {medium: Memory}}
    - {name: config, configMap: {name: settings, defaultMode: 0400}}
  containers:
    - name: web
      image: busybox
      env:
        - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: URL, value: 'http://$(POD_IP)/'}
      command: [sh, -c]
      args:
        - |
          echo id $(id -u) $(id -g) $(id -G); stat -c '%a %g %n' /scratch /memory /config/key
          touch /scratch/x /memory/x && cat /config/key && echo
          ifconfig | grep -q "addr:${POD_IP} " && echo address
          echo "$(URL)" "$URL"
      volumeMounts:
        - {name: scratch, mountPath: /scratch}
        - {name: memory, mountPath: /memory}
        - {name: config, mountPath: /config}
"""


def test_the_security_context_is_in_force(pods: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(POD)
    done = pods.ctl("run", "-p", path, "-a", "--rm")
    lines = [line.partition(" | ")[2] for line in done.stdout.splitlines()]
    assert lines[0].split()[:3] == ["id", "1000", "3000"] and "2000" in lines[0].split()[3:], lines
    assert lines[1:4] == ["2777 2000 /scratch", "2777 2000 /memory", "440 2000 /config/key"]
    assert lines[4:6] == ["value", "address"]
    first, second = lines[6].split()
    assert first == second and first.startswith("http://") and first != "http://127.0.0.1/"


def test_a_pod_that_would_run_as_root_does_not(pods: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(POD.replace("runAsUser: 1000, ", ""))
    done = pods.ctl("run", "-p", path, check=False)
    assert done.returncode and "must not run as root, and would: give it a user" in done.stderr
    assert "guarded" not in pods.out("pod", "ls")


def test_a_bad_number_stops_nothing_else(pods: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(
        "{id: bad, containers: [{image: busybox, command: ['true'], healthCheck: {shell: 'true', interval: 0s}}]}"
    )
    done = pods.ctl("pod", "create", path, check=False)
    assert done.returncode and "health.interval: must be a number above 0, not 0" in done.stderr
    assert "bad" not in pods.out("ps", "-a")
