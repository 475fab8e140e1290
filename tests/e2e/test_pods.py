# SPDX-License-Identifier: Apache-2.0
"""Pods from files, by the installed commands, with real images."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry import free_port

from . import app_image
from .conftest import BIN, DEADLINE, Daemon, wait_for
from .test_servers import fetch

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def app_layout() -> Path:
    return app_image.app()


@pytest.fixture
def pods(hyper: Daemon) -> Iterator[Daemon]:
    """The shared daemon; pods and volumes go at the end."""
    yield hyper
    for name in hyper.out("pod", "ls", "-q").split():
        hyper.ctl("pod", "rm", "-f", name)
    hyper.ctl("volume", "prune", "-af")
    assert list((hyper.root / "pods").iterdir()) == []


def edited(path: Path, tmp_path: Path, **changes: str) -> Path:
    """An example with other words, such as a free port; each must be there."""
    text = path.read_text()
    for old, new in changes.items():
        old = old.removeprefix("_")
        assert old in text
        text = text.replace(old, new)
    out = tmp_path / path.name
    out.write_text(text)
    return out


def load(daemon: Daemon, layout: Path, name: str) -> None:
    if daemon.ctl("inspect", "--type", "image", name, check=False).returncode:
        pulled = daemon.out("pull", "-q", f"oci:{layout}:test")
        daemon.ctl("tag", pulled, name)


def test_the_readme_pod(pods: Daemon, nginx_layout: Path, tmp_path: Path) -> None:
    load(pods, nginx_layout, "nginx")
    port = str(free_port())
    text = (EXAMPLES / "web.yaml").read_text().replace("/usr/share/nginx/html", "/var/www/html").replace("8080", port)
    (tmp_path / "web.yaml").write_text(text)
    pods.ctl("run", "-p", tmp_path / "web.yaml")
    wait_for(lambda: fetch(f"http://localhost:{port}/").startswith(b"The time is "), "the page that the helper writes")
    wait_for(
        lambda: "GET / HTTP" in pods.out("pod", "logs", "-c", "web-shipper", "web"),
        "nginx's log in the shipper's output",
    )
    tree = pods.out("pod", "top", "web").splitlines()
    assert [row for row in tree if "nginx: master" in row and "web-nginx" in row]
    assert [row for row in tree if "nginx: worker" in row] and [row for row in tree if "tail -F" in row]
    # A signal from one container to another's process: nginx reopens its log.
    pods.ctl("exec", "web-cron", "sh", "-c", "kill -USR1 $(ps | awk '/nginx: maste[r]/ {print $1}')")
    listed = json.loads(pods.out("pod", "ls", "--format", "json"))
    assert [(p["name"], p["status"]) for p in listed] == [("web", "running")]
    stats = json.loads(pods.out("pod", "stats", "--no-stream", "--format", "json", "web"))
    assert {s["name"] for s in stats} == {"web-nginx", "web-shipper", "web-cron"}
    pods.ctl("stop", "web")
    assert pods.out("pod", "inspect", "-f", "{{.Pod.Status}}", "web") == "exited"


@pytest.mark.slow
@pytest.mark.timeout(900)  # it boots three servers three times
def test_a_stack_keeps_its_data(
    pods: Daemon, databases_layout: Path, app_layout: Path, nginx_layout: Path, tmp_path: Path
) -> None:
    for layout, name in ((databases_layout, "databases"), (app_layout, "app"), (nginx_layout, "nginx")):
        load(pods, layout, name)
    port = free_port()
    podfile = edited(EXAMPLES / "stack.yaml", tmp_path, **{"_8081": str(port)})

    def run() -> None:
        env = {**pods.environment, "DB_PASSWORD": "from-the-environment"}
        subprocess.run(
            [BIN / "hyperctl", "run", "-p", podfile], env=env, check=True, timeout=DEADLINE, capture_output=True
        )

    def visit() -> bytes:
        answer = b""

        def answered() -> bool:
            nonlocal answer
            answer = fetch(f"http://localhost:{port}/")
            return answer.startswith(b"visit")

        wait_for(answered, "the application's answer")
        return answer

    run()
    first = int(visit().split()[1])
    pods.ctl("pod", "stop", "stack")
    pods.ctl("pod", "start", "stack")
    assert int(visit().split()[1]) > first
    inspected = pods.out("inspect", "stack") + pods.out("inspect", "stack-app")
    assert "from-the-environment" not in inspected
    in_use = pods.ctl("volume", "rm", "stack-data", check=False)
    assert in_use.returncode == 1 and "volume stack-data is in use by stack" in in_use.stderr
    pods.ctl("pod", "rm", "-f", "stack")
    assert "stack-data" in pods.out("volume", "ls", "-q").split()
    run()
    assert int(visit().split()[1]) > first + 1


def test_a_kubernetes_pod(pods: Daemon, tmp_path: Path) -> None:
    port = str(free_port())
    done = pods.ctl("run", "-p", edited(EXAMPLES / "kubernetes.yaml", tmp_path, **{"_8082": port}))
    assert "spec.nodeSelector has no counterpart here and is ignored" in done.stderr
    wait_for(lambda: fetch(f"http://localhost:{port}/") == b"<h1>from a ConfigMap</h1>", "the page of the ConfigMap")
    assert (
        pods.out("exec", "kube-server", "sh", "-c", "echo $GREETING in $POD; cat /sys/fs/cgroup/memory.max")
        == "good morning in kube\n67108864"
    )
    wait_for(
        lambda: "s3cret-token" in pods.out("pod", "logs", "-c", "sidecar", "kube"),
        "the secret in the side car's output",
    )
    assert pods.out("exec", "kube-sidecar", "id", "-u") == "65534"
    wait_for(lambda: "(healthy)" in pods.out("ps", "-f", "name=kube-server"), "a healthy server")
    assert "s3cret" not in pods.out("pod", "inspect", "kube")
    states = {c["name"]: c["state"]["status"] for c in json.loads(pods.out("pod", "inspect", "kube"))[0]["containers"]}
    assert states == {"kube-prepare": "exited", "kube-server": "running", "kube-sidecar": "running"}


def test_a_compose_file(pods: Daemon, tmp_path: Path) -> None:
    path = edited(EXAMPLES / "compose.yaml", tmp_path, **{"_8083": str(free_port())})
    refused = pods.ctl("run", "-p", path, check=False)
    assert refused.returncode == 125 and "name that pod with --pod NAME" in refused.stderr
    env = {**pods.environment, "SHOP_NAME": "Our shop", "SHOP_KEY": "k-e-y"}
    subprocess.run(
        [BIN / "hyperctl", "run", "-p", path, "--pod", "shop"],
        env=env,
        check=True,
        timeout=DEADLINE,
        capture_output=True,
    )
    wait_for(
        lambda: "Our shop is open" in pods.out("pod", "logs", "-c", "front", "shop"),
        "an answer from the other service, by its name",
    )
    assert (
        pods.out("exec", "shop-front", "sh", "-c", "echo $MODE; cat /banner /run/secrets/key")
        == "production\nwelcome\nk-e-y"
    )
    assert "shop_goods" in pods.out("volume", "ls", "-q")


def test_adding_and_removing_containers(pods: Daemon) -> None:
    pods.ctl("pod", "create", "--name", "grow")
    pods.ctl("pod", "start", "grow")
    pods.ctl(
        "create", "--pod", "grow", "--name", "first", "busybox", "sh", "-c", "echo on > /dev/shm/first; exec sleep 1000"
    )
    pods.ctl("create", "-c", "--name", "second", "grow", "busybox", "sleep", "1000")
    pods.ctl("start", "-c", "first", "second")
    wait_for(
        lambda: pods.ctl("pod", "exec", "-c", "second", "grow", "cat", "/dev/shm/first", check=False).stdout == "on\n",
        "the other's file",
    )
    pods.ctl("run", "-d", "--pod", "grow", "--name", "third", "busybox", "sleep", "1000")
    pods.ctl("rm", "-f", "-c", "first")
    assert sorted(json.loads(pods.out("pod", "ls", "--format", "json"))[0]["containers"]) == ["second", "third"]
    assert pods.out("pod", "exec", "grow", "hostname") == pods.out("exec", "grow", "hostname") == "grow"
    pods.ctl("pause", "grow")
    assert pods.out("pod", "inspect", "-f", "{{.Pod.Status}}", "grow") == "paused"
    pods.ctl("unpause", "grow")
    pods.ctl("pod", "labels", "grow", "tier=front")
    again = pods.ctl("pod", "labels", "grow", "tier=back", check=False)
    assert again.returncode == 1 and "has the label 'tier' already" in again.stderr
    assert pods.out("pod", "labels", "--override", "grow", "tier=back") == "tier=back"
    assert pods.out("list", "container", "-p", "grow", "-q").count("\n") == 1


def test_ports_services_and_generate(pods: Daemon, tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    podfile = tmp_path / "made.yaml"
    pods.ctl("pod", "generate", "-n", "made", "-p", f"{first}:8000", "-o", podfile, "busybox", "busybox")
    text = podfile.read_text().replace(
        "  image: busybox\n",
        "  image: busybox\n  command: [sh, -c, 'echo hi > /index.html; httpd -f -p 8000 -h /']\n",
        1,
    )
    podfile.write_text(
        text.replace("made-busybox-1\n  image: busybox\n", "made-other\n  image: busybox\n  command: [sleep, '1000']\n")
    )
    pods.ctl("pod", "run", podfile)
    wait_for(lambda: fetch(f"http://localhost:{first}/") == b"hi\n", "the generated pod's answer")
    assert f"0.0.0.0:{second}" in pods.out("ports", "add", "made", "-p", f"{second}:8000")
    wait_for(lambda: fetch(f"http://localhost:{second}/") == b"hi\n", "the added port")
    pods.ctl("ports", "delete", "made", "-p", f"{second}:8000")
    assert fetch(f"http://localhost:{second}/") == b"" and str(second) not in pods.out("pod", "ports", "made")
    pods.ctl("service", "add", "made", "10.254.0.1:80", "127.0.0.1:8000")
    assert pods.out("exec", "made-other", "wget", "-q", "-O", "-", "http://10.254.0.1/") == "hi"
    assert re.search(r"10\.254\.0\.1:80\s+tcp\s+127\.0\.0\.1:8000", pods.out("service", "ls", "made"))
    pods.ctl("service", "rm", "made", "10.254.0.1:80")
    assert json.loads(pods.out("pod", "schema"))["$defs"]["Podfile"]["additionalProperties"] is False


def test_attach_follows_until_the_end(pods: Daemon, tmp_path: Path) -> None:
    podfile = tmp_path / "short.json"
    containers = [
        {"name": n, "image": "busybox", "command": ["sh", "-c", f"echo from {n}; exit {code}"]}
        for n, code in (("a", 0), ("bb", 3))
    ]
    podfile.write_text(json.dumps({"id": "short", "containers": containers}))
    done = pods.ctl("run", "-p", podfile, "-a", "--rm", check=False)
    assert done.returncode == 3 and sorted(done.stdout.splitlines()) == ["a  | from a", "bb | from bb"]
    assert pods.out("pod", "ls", "-q") == ""


def test_volumes(pods: Daemon, tmp_path: Path) -> None:
    assert pods.out("volume", "create", "data") == "data"
    (tmp_path / "here").mkdir()
    (tmp_path / "here/file").write_text("from the host")
    script = "cat /h/file; echo x > /d/x; touch /h/no || echo read-only"
    out = pods.out("run", "--rm", "-v", "data:/d", "-v", f"{tmp_path}/here:/h:ro", "busybox", "sh", "-c", script)
    assert out == "from the hostread-only"
    assert pods.out("run", "--rm", "--mount", "type=volume,source=data,target=/d", "busybox", "cat", "/d/x") == "x"
    listed = json.loads(pods.out("volume", "ls", "--format", "json"))
    assert [(v["volume"]["name"], v["usedBy"]) for v in listed] == [("data", [])]
    pods.ctl("create", "--name", "holder", "-v", "data:/d", "busybox")
    refused = pods.ctl("volume", "rm", "data", check=False)
    assert refused.returncode == 1 and "volume data is in use by holder: remove what uses it first" in refused.stderr
    pods.ctl("rm", "holder")
    assert pods.out("volume", "rm", "data") == "data"


def test_diff_and_export(pods: Daemon, tmp_path: Path) -> None:
    pods.ctl("run", "--name", "changed", "busybox", "sh", "-c", "echo new > /new; rm /etc/passwd")
    assert pods.out("diff", "changed").splitlines() == ["C /etc", "D /etc/passwd", "A /new"]
    pods.ctl("export", "-o", tmp_path / "root.tar", "changed")
    names = subprocess.run(
        ["tar", "tf", tmp_path / "root.tar"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "new" in names and "etc/passwd" not in names


def test_restart_policy_on_the_command_line(pods: Daemon) -> None:
    pods.ctl("run", "-d", "--name", "again", "--restart", "on-failure:2", "busybox", "sh", "-c", "echo try; exit 7")
    wait_for(
        lambda: pods.out("inspect", "-f", "{{.State.Status}} {{.State.RestartCount}}", "again") == "exited 2",
        "two restarts",
    )
    assert pods.out("logs", "again") == "try\ntry\ntry"


def test_volumes_of_an_image(pods: Daemon, tmp_path: Path) -> None:
    """VOLUME: filled from the image, outside of the root file system, kept over a restart."""
    layout = tmp_path / "layout"
    rootfs = tmp_path / "rootfs"
    (rootfs / "data/deep").mkdir(parents=True)
    (rootfs / "data/deep/file").write_text("from the image")
    (rootfs / "data").chmod(0o750)
    (rootfs / "bin").mkdir()
    subprocess.run(["cp", "/bin/busybox", rootfs / "bin/sh"], check=True)
    subprocess.run(["tar", "-C", rootfs, "-cf", tmp_path / "layer.tar", "."], check=True)
    image = f"{layout}:test"
    for command in (
        ["init", "--layout", layout],
        ["new", "--image", image],
        ["raw", "add-layer", "--image", image, tmp_path / "layer.tar"],
        ["config", "--image", image, "--config.volume", "/data"],
    ):
        subprocess.run(["umoci", *command], check=True, capture_output=True)
    id_ = pods.out("pull", "-q", f"oci:{image}")
    script = "cat /data/deep/file; echo; stat -c %a /data; echo kept >> /data/log; cat /data/log"
    pods.ctl("create", "--name", "voluminous", id_, "/bin/sh", "-c", script)
    try:
        assert pods.out("start", "-a", "voluminous").split("\n") == ["from the image", "750", "kept"]
        assert pods.out("start", "-a", "voluminous").split("\n") == ["from the image", "750", "kept", "kept"]
        assert not [line for line in pods.out("diff", "voluminous").splitlines() if "/data" in line]
    finally:
        pods.ctl("rm", "-f", "voluminous")
        pods.ctl("rmi", id_)
