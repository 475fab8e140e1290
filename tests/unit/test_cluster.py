# SPDX-License-Identifier: Apache-2.0
"""What `run` says, as a Pod of a cluster."""

from __future__ import annotations

import shlex
from typing import Any

import click
import pytest

from hypercontainer.errors import HyperError, InvalidArgument, Unsupported
from hypercontainer.hyperctl.cluster.attached import run
from hypercontainer.hyperctl.cluster.manifest import name_for, pod_of
from hypercontainer.hyperctl.options import spec_from


def pod(line: str) -> dict[str, Any]:
    """Of a command line."""
    context = run.make_context("run", shlex.split(line))
    given = dict(context.params)
    given.pop("detach")
    return pod_of(spec_from(given.pop("image"), given.pop("command"), given), "hyper")


def container(line: str) -> dict[str, Any]:
    (found,) = pod(line)["spec"]["containers"]
    return dict(found)


def test_the_least() -> None:
    found = pod("--name web nginx")
    assert found["metadata"] == {"name": "web", "labels": {"app.kubernetes.io/managed-by": "hyperctl"}}
    assert found["spec"]["restartPolicy"] == "Never" and found["spec"]["runtimeClassName"] == "hyper"
    assert container("nginx") == {
        "name": "main", "image": "nginx", "tty": False, "stdin": False, "stdinOnce": False,
        "imagePullPolicy": "IfNotPresent", "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
    }  # fmt: skip


def test_flags() -> None:
    line = "-it -e A=1 -e B=x=y -w /w -u 5:6 -m 64m --cpus 0.5 --entrypoint sh --pull always --expose 80 busybox -c id"
    found = container(line)
    assert (found["command"], found["args"], found["workingDir"]) == (["sh"], ["-c", "id"], "/w")
    assert found["env"] == [{"name": "A", "value": "1"}, {"name": "B", "value": "x=y"}]
    assert found["resources"] == {"limits": {"memory": str(64 << 20), "cpu": "500m"}}
    assert found["stdin"] and found["stdinOnce"] and found["tty"] and found["imagePullPolicy"] == "Always"
    assert (found["securityContext"]["runAsUser"], found["securityContext"]["runAsGroup"]) == (5, 6)
    assert found["ports"] == [{"containerPort": 80, "protocol": "TCP"}]


def test_rights() -> None:
    line = "--privileged --read-only --cap-add cap_net_admin --cap-drop all --security-opt no-new-privileges"
    context = container(f"{line} --security-opt seccomp=unconfined busybox")["securityContext"]
    assert context["privileged"] and context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"add": ["NET_ADMIN"], "drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "Unconfined"}


def test_what_is_the_pods() -> None:
    line = "--group-add 7 --sysctl net.x=1 --add-host a:192.0.2.1 --dns 192.0.2.2 --dns-search d --dns-option ndots:2"
    spec = pod(f"{line} -l a=b --annotation c=d --stop-timeout 3 -h me busybox")["spec"]
    assert spec["securityContext"] == {"supplementalGroups": [7], "sysctls": [{"name": "net.x", "value": "1"}]}
    assert spec["hostAliases"] == [{"ip": "192.0.2.1", "hostnames": ["a"]}]
    assert spec["dnsConfig"] == {
        "nameservers": ["192.0.2.2"], "searches": ["d"], "options": [{"name": "ndots", "value": "2"}]
    }  # fmt: skip
    assert (spec["terminationGracePeriodSeconds"], spec["hostname"]) == (3, "me")
    metadata = pod("-l a=b --annotation c=d busybox")["metadata"]
    assert metadata["labels"]["a"] == "b" and metadata["annotations"] == {"c": "d"}


def test_volumes() -> None:
    spec = pod("-v data:/data:ro -v /own --tmpfs /t:size=1m busybox")["spec"]
    by_path = {m["mountPath"]: m for m in spec["containers"][0]["volumeMounts"]}
    kinds = {v["name"]: {k: w for k, w in v.items() if k != "name"} for v in spec["volumes"]}
    assert by_path["/data"]["readOnly"] is True
    assert kinds[by_path["/data"]["name"]] == {"persistentVolumeClaim": {"claimName": "data"}}
    assert kinds[by_path["/own"]["name"]] == {"emptyDir": {}}
    assert kinds[by_path["/t"]["name"]] == {"emptyDir": {"medium": "Memory", "sizeLimit": str(1 << 20)}}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-p 80:80 busybox", "-p is not possible in a cluster"),
        ("-P busybox", "-P is not possible"),
        ("--network none busybox", "--network is not possible"),
        ("--restart always busybox", "--restart is not possible"),
        ("--driver qemu busybox", "--driver is not possible"),
        ("--isolation fresh busybox", "--isolation is not possible"),
        ("--pids-limit 5 busybox", "--pids-limit is not possible"),
        ("--ulimit nofile=5 busybox", "--ulimit is not possible"),
        ("--shm-size 1m busybox", "--shm-size is not possible"),
        ("--init busybox", "--init is not possible"),
        ("--health-cmd true busybox", "--health-cmd is not possible"),
        ("--log-driver none busybox", "--log-driver is not possible"),
        ("--no-healthcheck busybox", "--no-healthcheck is not possible"),
        ("--link a busybox", "--link is not possible"),
        ("--tmpfs /t:mode=700 busybox", "mode, uid and gid of a --tmpfs are not possible"),
        ("--tmpfs /t:uid=5 busybox", "mode, uid and gid of a --tmpfs are not possible"),
        ("--platform linux/arm64 busybox", "--platform is not possible"),
        ("-v /etc:/x busybox", "/etc of this host cannot be mounted in a cluster"),
    ],
)
def test_what_a_pod_has_not_is_refused_by_name(line: str, said: str) -> None:
    with pytest.raises(Unsupported, match=said):
        pod(line)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--name Web busybox", "'Web' is no name of a Pod"),
        (f"--name {'a' * 64} busybox", "is no name of a Pod"),
        ("-u www-data busybox", "the user 'www-data' is no number"),
        ("--group-add wheel busybox", "the group 'wheel' is no number"),
    ],
)
def test_what_kubernetes_does_not_know_is_said(line: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        pod(line)


@pytest.mark.parametrize(
    ("image", "begin"),
    [("nginx", "nginx-"), ("registry:5000/team/My_App:1.2", "my-app-"), ("x@sha256:ab", "x-"), ("_", "pod-")],
)
def test_names_say_the_image(image: str, begin: str) -> None:
    one, other = name_for(image), name_for(image)
    assert one.startswith(begin) and one != other and len(one) <= 63
    assert pod(f"--name {one} busybox")


def test_every_flag_of_run_is_taken_or_refused() -> None:
    """None is dropped in silence: each that changes the container's specification changes the Pod, or is an error."""
    passed = {"rm", "quiet", "cidfile", "detach_keys", "help"}
    for option in (p for p in run.params if isinstance(p, click.Option) and not p.hidden):
        flag = max(option.opts, key=len)
        if option.name in passed | {"detach"} or not option.is_flag:
            continue
        try:
            assert pod(f"--name x {flag} busybox") != pod("--name x busybox"), flag
        except HyperError:
            continue
