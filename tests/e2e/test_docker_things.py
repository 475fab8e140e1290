# SPDX-License-Identifier: Apache-2.0
"""Docker's own client: images, volumes, networks and the daemon itself. No machine is started."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry import Registry, serving

from .conftest import Daemon


@pytest.fixture
def docker(hyper: Daemon, registry: Registry) -> Iterator[Daemon]:
    """With an image that a registry has, as one that nobody has pulled."""
    name = f"{registry.address}/things/box"
    hyper.docker("tag", "busybox", f"{name}:1")
    hyper.docker("push", "-q", f"{name}:1")
    hyper.docker("rmi", f"{name}:1")
    yield hyper
    names = hyper.docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    if own := [n for n in names if n not in ("busybox:latest", "<none>:<none>")]:
        hyper.docker("rmi", "-f", *own)
    hyper.docker("image", "prune", "-f")
    if "busybox:latest" not in names:  # it is everybody's
        hyper.ctl("pull", "-q", "builtin:busybox")


def test_an_image_comes_and_goes(docker: Daemon, registry: Registry) -> None:
    name = f"{registry.address}/things/box"
    digest = json.loads(docker.docker("manifest", "inspect", "--insecure", f"{name}:1").stdout)["config"]["digest"]
    told = docker.docker("pull", f"{name}:1").stdout
    assert re.search(r"^1: Pulling from things/box$", told, re.M)
    assert re.search(r"^Digest: sha256:[0-9a-f]{64}$", told, re.M)
    assert f"Status: Downloaded newer image for {name}:1" in told
    assert f"Status: Image is up to date for {name}:1" in docker.docker("pull", "-a", name).stdout

    listed = docker.docker("images", "--format", "{{.Repository}} {{.Tag}} {{.ID}}", name).stdout.split()
    assert listed == [name, "1", digest[7:19]]
    assert docker.docker("images", "-q", "--no-trunc", "--filter", f"reference={name}").stdout.strip() == digest
    assert docker.docker("images", "--filter", "label=nobody", "-q").stdout == ""
    shown = docker.docker("image", "inspect", "-f", "{{.Os}} {{.Architecture}} {{json .Config.Cmd}}", name + ":1")
    assert shown.stdout.split()[:2] == ["linux", "amd64"]
    assert digest[7:19] in docker.docker("history", f"{name}:1").stdout

    docker.docker("tag", f"{name}:1", f"{name}:two")
    told = docker.docker("push", f"{name}:two").stdout
    assert re.search(r"^two: digest: sha256:[0-9a-f]{64} size: \d+$", told, re.M)
    assert sorted(json.loads(registry.get("things/box/tags/list"))["tags"]) == ["1", "two"]
    assert docker.docker("rmi", f"{name}:two").stdout == f"Untagged: {name}:two\n"
    assert docker.docker("pull", "-q", f"{name}:two").stdout == f"{name}:two\n"
    gone = docker.docker("pull", f"{name}:none", check=False)
    assert gone.returncode == 1 and "no such image or tag" in gone.stderr
    assert "No such image" in docker.docker("image", "inspect", "nope", check=False).stderr.replace(
        "no such", "No such"
    )


def test_archives_of_images(docker: Daemon, tmp_path: Path) -> None:
    saved = tmp_path / "saved.tar"
    docker.docker("tag", "busybox", "things/kept:1")
    docker.docker("save", "-o", saved, "things/kept:1", "busybox")
    docker.docker("rmi", "things/kept:1")
    told = docker.docker("load", "-i", saved).stdout.splitlines()
    assert sorted(told) == ["Loaded image: busybox:latest", "Loaded image: things/kept:1"]
    assert docker.docker("load", "-q", input=saved.read_bytes()).stdout.count("Loaded image") == 2

    layer = tmp_path / "layer.tar"
    (tmp_path / "hello").write_text("hi")
    subprocess.run(["tar", "-cf", layer, "-C", tmp_path, "hello"], check=True)
    id_ = docker.docker("import", "-m", "by hand", "-c", 'CMD ["true"]', layer, "things/made:2").stdout.strip()
    shown = docker.docker("inspect", "-f", "{{.Id}} {{.Comment}} {{.Config.Cmd}}", "things/made:2").stdout.strip()
    assert shown == f"{id_} by hand [true]"


def test_volumes(docker: Daemon) -> None:
    assert docker.docker("volume", "create", "--label", "a=b", "things").stdout == "things\n"
    bare = docker.docker("volume", "create").stdout.strip()
    assert docker.docker("volume", "ls", "-q", "--filter", "label=a=b").stdout == "things\n"
    shown = docker.docker("volume", "inspect", "-f", "{{.Driver}} {{.Scope}} {{.Labels.a}}", "things").stdout
    assert shown == "local local b\n"
    assert "Local Volumes" in docker.docker("system", "df").stdout
    assert "things" in docker.docker("system", "df", "-v").stdout
    told = docker.docker("volume", "prune", "-f").stdout
    assert bare in told and "Total reclaimed space: " in told
    assert docker.docker("volume", "rm", "things").stdout == "things\n"
    wrong = docker.docker("volume", "create", "-d", "rexray", check=False)
    assert 'plugin "rexray" not found' in wrong.stderr


def test_volumes_of_no_name(docker: Daemon) -> None:
    """They have what the image has there, outlive their container, and go with `--rm` and `rm -v`."""
    docker.docker("run", "--name", "first", "-v", "/etc", "busybox", "sh", "-c", "ls /etc/passwd; echo here > /etc/f")
    docker.docker("rm", "first")
    (name,) = docker.docker("volume", "ls", "-q", "--filter", "dangling=true").stdout.split()
    assert len(name) == 64
    kept = docker.docker(
        "run", "--name", "second", "-v", f"{name}:/d", "-v", "/e", "busybox", "cat", "/d/f", "/d/passwd"
    )
    assert kept.stdout.startswith("here\nroot:")
    docker.docker("rm", "-v", "second")
    docker.docker("run", "--rm", "-v", "/etc", "busybox", "true")
    assert docker.docker("volume", "ls", "-q").stdout.split() == [name]
    assert name in docker.docker("volume", "prune", "-f").stdout


def test_a_volume_of_two_containers(docker: Daemon) -> None:
    """A disk is one running container's; the refusal says how both can have it, and it is so."""
    docker.docker("run", "-d", "--name", "app", "-v", "page:/srv", "busybox", "sleep", "1000")
    refused = docker.docker("run", "--name", "web", "-v", "page:/srv", "busybox", "true", check=False)
    command = re.search("`docker (volume create [^`]*)`", refused.stderr)
    assert refused.returncode and command
    docker.docker("rm", "-f", "app", "web")
    docker.docker("volume", "rm", "page")
    docker.docker(*command[1].split())
    docker.docker(
        "run", "-d", "--name", "app", "-v", "page:/srv", "busybox", "sh", "-c", "echo here > /srv/f; sleep 1000"
    )
    told = "until cat /srv/f; do sleep 0.1; done 2>/dev/null"
    assert docker.docker("run", "--rm", "-v", "page:/srv", "busybox", "sh", "-c", told).stdout == "here\n"
    at = docker.docker("volume", "inspect", "-f", "{{.Mountpoint}}", "page").stdout.strip()
    assert (Path(at) / "f").read_text() == "here\n"
    docker.docker("rm", "-f", "app")
    docker.docker("volume", "rm", "page")


def test_networks(docker: Daemon) -> None:
    id_ = docker.docker("network", "create", "--label", "a=b", "--subnet", "10.77.0.0/24", "lan").stdout.strip()
    assert docker.docker("network", "ls", "-q", "--no-trunc", "--filter", "label=a").stdout.strip() == id_
    rows = docker.docker("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}").stdout.splitlines()
    assert sorted(rows) == ["bridge bridge local", "host host local", "lan bridge local", "none null local"]
    config = "{{(index .IPAM.Config 0).Subnet}} {{(index .IPAM.Config 0).Gateway}}"
    assert docker.docker("network", "inspect", "-f", config, "lan").stdout == "10.77.0.0/24 10.77.0.1\n"
    docker.docker("create", "--name", "box", "--network", "lan", "--network-alias", "b", "busybox", "sleep", "9")
    docker.docker("network", "create", "second")
    docker.docker("network", "connect", "--ip", "10.77.0.9", "second", "box", check=False)
    docker.docker("network", "connect", "--alias", "c", "second", "box")
    names = docker.docker("inspect", "-f", "{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{end}}", "box")
    assert names.stdout.split() == ["lan", "second"]
    docker.docker("network", "disconnect", "second", "box")
    assert "in use" in docker.docker("network", "rm", "lan", check=False).stderr
    assert docker.docker("network", "prune", "-f").stdout.split()[-1] == "second"
    docker.docker("rm", "box")
    assert docker.docker("network", "rm", "lan").stdout == "lan\n"
    assert "pre-defined" in docker.docker("network", "rm", "host", check=False).stderr


def test_the_daemon_itself(docker: Daemon) -> None:
    docker.docker("create", "--name", "one", "busybox")
    shown = docker.docker("info", "-f", "{{.Containers}} {{.ContainersStopped}} {{.OSType}} {{.Swarm.LocalNodeState}}")
    assert shown.stdout == "1 1 linux inactive\n"
    whole = docker.docker("info")
    assert "Storage Driver: erofs" in whole.stdout and "Server Version: 28.2.2" in whole.stdout
    rows = [json.loads(line) for line in docker.docker("system", "df", "--format", "json").stdout.splitlines()]
    assert {r["Type"]: r["TotalCount"] for r in rows} == {
        "Images": "1", "Containers": "1", "Local Volumes": "0", "Build Cache": "0",
    }  # fmt: skip
    assert "one" in docker.docker("system", "df", "-v").stdout
    told = docker.docker("system", "prune", "-f").stdout
    assert "Deleted Containers:" in told
    assert docker.docker("ps", "-aq").stdout == ""
    assert "has no search" in docker.docker("search", "nginx", check=False).stderr


@pytest.mark.filterwarnings("ignore:'crypt' is deprecated")
def test_login_push_and_pull(hyper: Daemon, tmp_path: Path) -> None:
    """A registry that asks for a password: what the client keeps is sent with each request."""
    import crypt

    salt = crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)  # each request costs the registry as many
    (tmp_path / "users").write_text("user:" + crypt.crypt("secret", salt) + "\n")
    with serving(tmp_path, f"auth: {{htpasswd: {{realm: test, path: {tmp_path}/users}}}}\n") as registry:
        name = f"{registry.address}/private/box:1"
        login = ("login", "-u", "user", "--password-stdin", registry.address)
        refused = hyper.docker(*login, input=b"wrong\n", check=False)
        assert refused.returncode == 1 and "refused the credentials" in refused.stderr
        hyper.docker("tag", "busybox", name)
        try:
            refused = hyper.docker("push", "-q", name, check=False)
            assert refused.returncode == 1 and "refused the credentials" in refused.stderr
            assert "Login Succeeded" in hyper.docker(*login, input=b"secret\n").stdout
            hyper.docker("push", "-q", name)
            hyper.docker("rmi", name)
            assert hyper.docker("pull", "-q", name).stdout == f"{name}\n"
        finally:
            hyper.docker("logout", registry.address)
            hyper.docker("rmi", "-f", name, check=False)
