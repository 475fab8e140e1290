# SPDX-License-Identifier: Apache-2.0
"""Real images from a real registry, real servers, real load."""

from __future__ import annotations

import http.client
import os
import re
import signal
import stat
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.registry import Registry, free_port

from .conftest import DEADLINE, Daemon, push, wait_for


def fetch(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            body: bytes = answer.read()
            return body
    except (OSError, http.client.HTTPException):
        return b""


@pytest.fixture(scope="module")
def nginx(registry: Registry, nginx_layout: Path) -> str:
    return push(nginx_layout, registry, "nginx:test")


@pytest.fixture(scope="module")
def databases(registry: Registry, databases_layout: Path) -> str:
    return push(databases_layout, registry, "databases:test")


def test_nginx_answers_curl(hyper: Daemon, nginx: str) -> None:
    pulled = hyper.ctl("pull", nginx)
    assert pulled.stdout.strip() == nginx and pulled.stderr.count("Pull complete") >= 4
    port = free_port()
    hyper.ctl("run", "-d", "--name", "web", "-p", f"{port}:80", nginx)
    wait_for(lambda: fetch(f"http://localhost:{port}/") == b"<h1>hyper</h1>\n", "nginx's page")
    curl = subprocess.run(["curl", "-sS", f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True)
    assert curl.stdout == "<h1>hyper</h1>\n"
    assert f"0.0.0.0:{port}->80/tcp" in hyper.out("ps")
    clash = hyper.ctl("run", "-d", "-p", f"{port}:80", nginx, check=False)
    assert clash.returncode == 125 and f"cannot publish 0.0.0.0:{port}/tcp" in clash.stderr
    hyper.ctl("stop", "web")  # by the image's SIGQUIT
    assert hyper.out("inspect", "-f", "{{.State.ExitCode}}", "web") == "0"
    hyper.ctl("start", "web")
    wait_for(lambda: fetch(f"http://localhost:{port}/") == b"<h1>hyper</h1>\n", "nginx's page after a restart")


def test_a_free_port_is_chosen(hyper: Daemon, nginx: str) -> None:
    hyper.ctl("run", "-d", "--name", "web", "-p", "127.0.0.1::80", nginx)
    found = re.search(r"127.0.0.1:(\d+)->80", hyper.out("ps"))
    assert found
    wait_for(lambda: b"hyper" in fetch(f"http://127.0.0.1:{found[1]}/"), "nginx on a chosen port")


def test_redis_under_load(hyper: Daemon, databases: str) -> None:
    port = free_port()
    hyper.ctl(
        "run",
        "-d",
        "--name",
        "redis",
        "-p",
        f"{port}:6379",
        databases,
        "redis-server",
        "--protected-mode",
        "no",
        "--save",
        "",
    )

    def ping() -> bool:
        done = subprocess.run(["redis-cli", "-p", str(port), "ping"], capture_output=True, text=True, check=False)
        return "PONG" in done.stdout

    wait_for(ping, "redis")
    command = ["redis-benchmark", "-p", str(port), "-n", "2000", "-c", "10", "-t", "set,get", "--csv"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True)
    assert '"SET"' in done.stdout and '"GET"' in done.stdout


@pytest.mark.turns(3)
@pytest.mark.timeout(900)
def test_postgres_keeps_its_data(hyper: Daemon, databases: str) -> None:
    hyper.ctl("run", "-d", "--name", "pg", "-u", "postgres", "-m", "512m", databases, "start-postgres")

    def sql(*args: str) -> subprocess.CompletedProcess[str]:
        return hyper.ctl("exec", "-u", "postgres", "pg", *args, check=False)

    def ready() -> bool:
        return sql("pg_isready", "-h", "/tmp").returncode == 0

    wait_for(ready, "postgres", 2 * DEADLINE)
    assert sql("pgbench", "-h", "/tmp", "-i", "-q", "postgres").returncode == 0
    ran = sql("pgbench", "-h", "/tmp", "-t", "20", "-c", "2", "postgres")
    assert "number of transactions actually processed: 40/40" in ran.stdout, ran.stderr
    assert hyper.ctl("restart", "-t", "60", "pg").returncode == 0
    wait_for(ready, "postgres after its restart", 2 * DEADLINE)
    assert sql("psql", "-h", "/tmp", "-Atc", "select count(*) from pgbench_history", "postgres").stdout.strip() == "40"
    assert "database system was shut down" in hyper.ctl("logs", "pg").stderr + hyper.ctl("logs", "pg").stdout


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_postgres_makes_its_cluster_on_a_fresh_volume(hyper: Daemon, databases: str) -> None:
    """As the entry point of Docker's image does: initdb refuses a directory in which something is."""
    data, bin_ = "/var/lib/postgresql/data", "/usr/lib/postgresql/15/bin"

    def sql(text: str) -> str:
        ask = ("psql", "-h", "/tmp", "-U", "postgres", "-Atc", text)
        return hyper.ctl("exec", "pg2", *ask, check=False).stdout.strip()

    hyper.ctl("volume", "create", "cluster")
    fresh = f"[ ! -e {data}/PG_VERSION ]"
    initdb, serve = f"{bin_}/initdb -A trust -D {data} >/dev/null", f"exec {bin_}/postgres -D {data} -k /tmp"
    begin = f"set -e; ls -A {data}; if {fresh}; then chown postgres {data}; chmod 700 {data}; fi; exec su postgres -c"
    script = f"{begin} 'set -e; if {fresh}; then {initdb}; fi; {serve}'"
    for table in ("one", "two"):
        hyper.ctl("run", "-d", "--name", "pg2", "-m", "512m", "-v", f"cluster:{data}", databases, "sh", "-c", script)
        wait_for(lambda: sql("select 1") == "1", "postgres", 2 * DEADLINE)
        sql(f"create table {table} ()")
        assert sql("select count(*) from pg_tables where tablename in ('one', 'two')") == (
            "1" if table == "one" else "2"
        )
        assert ("PG_VERSION" in hyper.out("logs", "pg2")) is (table == "two")  # nothing was in it at first
        hyper.ctl("stop", "pg2")
        hyper.ctl("rm", "pg2")
    hyper.ctl("volume", "rm", "cluster")


# -- the tree inside equals umoci's -----------------------------------------------------

# Printed by a container and by this host alike: type, mode, owner, target, size,
# path; then contents; then file capabilities.
_SURVEY = r"""
skip='-path ./proc -o -path ./sys -o -path ./dev -o -path ./run'
for f in hosts hostname resolv.conf machine-id; do skip="$skip -o -path ./etc/$f"; done
find . -xdev \( $skip \) -prune -o \( -type d -printf '%y|%m|%U:%G|%p\n' \) \
  -o -printf '%y|%m|%U:%G|%n|%l|%s|%p\n' | LC_ALL=C sort
find . -xdev \( $skip \) -prune -o -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum
find . -xdev -type f -perm -u+x -path '*bin*' -print0 | LC_ALL=C sort -z | xargs -0 getcap -n
"""


@pytest.mark.turns(3)
def test_file_tree_equals_umocis(hyper: Daemon, nginx: str, nginx_layout: Path, tmp_path: Path) -> None:
    """Paths, types, modes, owners, links, devices, contents, file capabilities."""
    bundle = tmp_path / "bundle"
    subprocess.run(["umoci", "unpack", "--image", f"{nginx_layout}:test", bundle], check=True, capture_output=True)
    survey = "cd ${1:-/}\n" + _SURVEY
    ours = hyper.ctl("run", "--rm", "--entrypoint", "bash", nginx, "-c", survey).stdout.splitlines()
    theirs = subprocess.run(
        ["bash", "-c", survey, "bash", bundle / "rootfs"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(ours) > 3000
    assert [x for x in ours if x not in set(theirs)] == []
    assert [x for x in theirs if x not in set(ours)] == []
    assert any("cap_net_raw" in x for x in ours), "the image has no file capabilities to compare"
    assert not any(x.endswith("./usr/share/doc") for x in ours)


def test_extended_attributes_and_odd_names(hyper: Daemon, tmp_path: Path) -> None:
    """User attributes, non-UTF-8 and long names, sparse files, hard links across layers."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "plain").write_text("x")
    os.setxattr(tree / "plain", "user.note", b"a\nb=\0c")
    odd = os.fsencode(tree) + b"/odd-\xff\xfe"
    with open(odd, "w") as f:
        f.write("odd")
    (tree / ("n" * 200)).write_text("long")
    with open(tree / "sparse", "wb") as f:
        f.truncate(50 << 20)
    os.mkfifo(tree / "fifo")
    os.link(tree / "plain", tree / "hard")
    archive = tmp_path / "layer.tar"
    subprocess.run(["tar", "--format=pax", "--xattrs", "--sparse", "-C", tree, "-cf", archive, "."], check=True)
    layout = tmp_path / "layout"
    for command in (
        ["umoci", "init", "--layout", layout],
        ["umoci", "new", "--image", f"{layout}:test"],
        ["umoci", "raw", "add-layer", "--image", f"{layout}:test", archive],
        ["umoci", "raw", "add-layer", "--image", f"{layout}:test", _busybox_layer(tmp_path)],
        ["umoci", "config", "--image", f"{layout}:test", "--config.cmd", "/busybox", "--config.cmd", "sh"],
    ):
        subprocess.run(command, check=True, capture_output=True)
    id_ = hyper.ctl("pull", "-q", f"oci:{layout}:test").stdout.strip()
    script = (
        "cd /; /busybox stat -c '%h %s' plain sparse; "
        "/busybox find . -name 'odd*' | /busybox od -c | /busybox grep -c '377 376'; "
        "/busybox test -p fifo; echo $?; /busybox cat nnn*"
    )
    out = hyper.out("run", "--rm", "--entrypoint", "/busybox", id_.removeprefix("sha256:")[:12], "sh", "-c", script)
    assert out.splitlines() == ["2 1", f"1 {50 << 20}", "1", "0", "long"]
    raw = subprocess.run(
        ["hyperctl", "create", "--entrypoint", "/busybox", id_.removeprefix("sha256:")[:12], "true"],
        capture_output=True, text=True, env=hyper.environment, check=True,
    ).stdout.strip()  # fmt: skip
    target = tmp_path / "out.tar"
    with open(target, "wb") as f:
        subprocess.run(["hyperctl", "cp", f"{raw}:/plain", "-"], stdout=f, env=hyper.environment, check=True)
    assert b"SCHILY.xattr.user.note=a\nb=\0c" in target.read_bytes()
    hyper.ctl("rm", raw)
    hyper.ctl("rmi", "-f", id_.removeprefix("sha256:")[:12])


def _busybox_layer(tmp_path: Path) -> Path:
    """A second layer: a static shell, and a link to a file of the first."""
    box = tmp_path / "box"
    box.mkdir()
    (box / "busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (box / "busybox").chmod(0o755)
    assert stat.S_ISREG((box / "busybox").stat().st_mode)
    layer = tmp_path / "box.tar"
    subprocess.run(["tar", "-C", box, "-cf", layer, "busybox"], check=True)
    return layer


def test_two_pulls_share_the_work(hyper: Daemon, registry: Registry, nginx_layout: Path) -> None:
    name = push(nginx_layout, registry, "shared:test")
    both = [
        subprocess.Popen(
            ["hyperctl", "pull", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=hyper.environment
        )
        for _ in range(2)
    ]
    outs = [p.communicate(timeout=DEADLINE) for p in both]
    assert [p.returncode for p in both] == [0, 0]
    assert all("Digest: sha256:" in err for _, err in outs)


def test_an_interrupted_pull_leaves_nothing(hyper: Daemon, registry: Registry, nginx_layout: Path) -> None:
    name = push(nginx_layout, registry, "interrupted:test")
    names = set(hyper.out("images", "-q").split())
    for image in names:  # so that there is something to download
        if "nginx" in hyper.out("inspect", "--type", "image", "-f", "{{json .Config}}", image):
            hyper.ctl("rmi", "-f", image)
    before = hyper.leftovers()
    process = subprocess.Popen(
        ["hyperctl", "pull", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=hyper.environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background has it ignored
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "Waiting" in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    wait_for(lambda: hyper.leftovers() == before, "the end of what the pull left")
    assert hyper.ctl("inspect", "--type", "image", name, check=False).returncode == 1


@pytest.mark.turns(3)
def test_sources(hyper: Daemon, nginx_layout: Path, tmp_path: Path) -> None:
    """oci:, oci-archive:, docker-archive: lead to the same image."""
    archive, docker = tmp_path / "oci.tar", tmp_path / "docker.tar"
    copy = ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{nginx_layout}:test"]
    subprocess.run([*copy, f"oci-archive:{archive}:arch:v1"], check=True, capture_output=True)
    subprocess.run([*copy, f"docker-archive:{docker}:example.com/from/docker:v2"], check=True, capture_output=True)
    ids = [
        hyper.out("pull", "-q", s)
        for s in (f"oci:{nginx_layout}:test", f"oci-archive:{archive}:arch:v1", f"docker-archive:{docker}")
    ]
    assert all(i.startswith("sha256:") for i in ids)
    assert "example.com/from/docker" in hyper.out("images")
    layers = {
        tuple(re.findall(r"sha256:\w+", hyper.out("inspect", "-f", "{{json .Layers}}", i.removeprefix("sha256:"))))
        for i in ids
    }
    assert len(layers) == 1


@pytest.mark.filterwarnings("ignore:'crypt' is deprecated")
def test_credentials(hyper: Daemon, nginx_layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry with a password: refused without, pulled with `login`."""
    import crypt

    port = free_port()
    salt = crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)  # each request costs the registry as many
    (tmp_path / "htpasswd").write_text("user:" + crypt.crypt("secret", salt) + "\n")
    (tmp_path / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/store}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\nauth: {{htpasswd: {{realm: test, path: {tmp_path}/htpasswd}}}}\n"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", tmp_path / "config.yml"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        name = f"localhost:{port}/secret:1"
        target = [
            "--dest-creds",
            "user:secret",
            "--dest-tls-verify=false",
            f"oci:{nginx_layout}:test",
            f"docker://{name}",
        ]
        wait_for(
            lambda: (
                subprocess.run(
                    ["skopeo", "--insecure-policy", "copy", "-q", *target], capture_output=True, check=False
                ).returncode
                == 0
            ),
            "the registry",
        )
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
        refused = hyper.ctl("pull", name, check=False)
        assert refused.returncode == 1 and "refused the credentials" in refused.stderr
        hyper.ctl("login", "-u", "user", "--password-stdin", f"localhost:{port}", input=b"secret\n")
        assert (tmp_path / "docker/config.json").stat().st_mode & 0o077 == 0
        assert hyper.out("pull", "-q", name).startswith("sha256:")
        hyper.ctl("logout", f"localhost:{port}")
        assert hyper.ctl("pull", name, check=False).returncode == 1
    finally:
        process.terminate()
        process.wait(10)
