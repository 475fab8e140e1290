# SPDX-License-Identifier: Apache-2.0
"""Real builds, by the real dockerd in the builder's machine: `hyperctl build`, and Docker's own client."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hyperbuilder import build as hyperbuilder

from hypercontainer.sys.caches import cache_directory

from .conftest import BIN, Daemon, launched, wait_for

APP = """\
ARG BASE=busybox
FROM ${BASE} AS made
ARG GREETING=hello
WORKDIR /work
COPY . .
RUN --mount=type=cache,target=/cache <<EOF
set -e
echo "$GREETING" >said
echo run >>/cache/runs
ls -A >listed
EOF

FROM busybox
LABEL kind=app
ENV PLACE=world
COPY --from=made --chown=1000:1000 /work/said /work/listed /srv/
HEALTHCHECK --interval=5s CMD test -e /srv/said
USER 1000
ENTRYPOINT ["sh", "-c", "echo $(cat /srv/said) $PLACE $(id -u)"]
"""


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon, and so one builder, for all builds."""
    hyperbuilder.build()
    place = tmp_path_factory.mktemp("builds")
    with launched(place / "root") as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        # The builder's start has its own time, which no build's step has to share.
        daemon.ctl("build", "-q", context(place / "first", "FROM scratch\nCOPY Dockerfile /\n"))
        yield daemon
        daemon.ctl("builder", "stop")
        daemon.remove_all()


def context(directory: Path, dockerfile: str, **files: str) -> Path:
    directory.mkdir()
    for name, text in {"Dockerfile": dockerfile, **files}.items():
        (directory / name).write_text(text)
    return directory


def test_a_dockerfile_of_several_stages(builds: Daemon, tmp_path: Path) -> None:
    where = context(tmp_path / "app", APP, kept="1", left="2")
    (where / ".dockerignore").write_text("le*\nDockerfile\n")
    told = builds.ctl("build", "-t", "app:1", "--build-arg", "GREETING=hey", "--label", "more=x", where).stderr
    assert "RUN --mount=type=cache" in told and "naming to docker.io/library/app:1" in told
    assert builds.out("run", "--rm", "app:1") == "hey world 1000"
    assert builds.out("run", "--rm", "--entrypoint", "cat", "app:1", "/srv/listed").split() == [
        ".dockerignore", "Dockerfile", "kept", "listed", "said",
    ]  # fmt: skip
    image = json.loads(builds.out("image", "inspect", "app:1"))[0]
    text = json.dumps(image)
    assert '"kind": "app"' in text and '"more": "x"' in text and "test -e /srv/said" in text
    # The base's layers are the base's own.
    base = json.loads(builds.out("image", "inspect", "busybox"))[0]
    assert base["layers"][0] in image["layers"]


@pytest.mark.slow
def test_what_has_not_changed_is_not_built_again(builds: Daemon, tmp_path: Path) -> None:
    where = context(tmp_path / "same", "FROM busybox\nRUN echo one >/one\n")
    first = builds.out("build", "-q", where)
    told = builds.ctl("build", "-t", "same", where).stderr
    assert "CACHED" in told
    assert builds.out("images", "-q", "--no-trunc", "same") == first


@pytest.mark.slow
def test_an_image_that_was_built_is_begun_with(builds: Daemon, tmp_path: Path) -> None:
    builds.ctl("build", "-t", "base:local", context(tmp_path / "base", "FROM busybox\nRUN echo from-base >/base\n"))
    builds.ctl("build", "-t", "child", context(tmp_path / "child", "FROM base:local\nCMD cat /base\n"))
    assert builds.out("run", "--rm", "child") == "from-base"


def test_a_step_that_fails(builds: Daemon, tmp_path: Path) -> None:
    where = context(tmp_path / "fails", "FROM busybox\nRUN echo before; exit 7\n")
    done = builds.ctl("build", "-t", "fails", where, check=False)
    assert done.returncode == 1
    assert "before" in done.stderr and "exit code: 7" in done.stderr
    assert builds.out("images", "-q", "fails") == ""


@pytest.mark.slow
def test_ctrl_c_ends_a_build(builds: Daemon, tmp_path: Path) -> None:
    where = context(tmp_path / "long", "FROM busybox\nRUN echo begun; sleep 1000\n")
    # What is started in the background of a shell's script ignores the signal, and so would what it starts.
    command = ["env", "--default-signal=INT", BIN / "hyperctl", "build", where]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=builds.environment) as process:
        assert process.stderr
        while b"begun" not in (line := process.stderr.readline()) or b"RUN" in line:
            assert line, "the build ended before it began"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130

    def sleeps() -> bool:
        return "sleep 1000" in builds.ctl("exec", "hyper-builder", "ps", "-o", "args").stdout

    wait_for(lambda: not sleeps(), "the end of the step")


def docker(builds: Daemon, configuration: Path, *command: str | Path, **environment: str) -> str:
    """What Docker's own client prints."""
    known = {"DOCKER_HOST": f"unix://{builds.run}/docker.sock", "DOCKER_CONFIG": str(configuration), **environment}
    done = subprocess.run(
        ["docker", *command], env={**os.environ, **known}, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_dockers_own_client_without_buildkit(builds: Daemon, tmp_path: Path) -> None:
    where = context(tmp_path / "classic", "FROM busybox\nRUN echo classic >/said\nCMD cat /said\n")
    told = docker(builds, tmp_path, "build", "-t", "classic", where, DOCKER_BUILDKIT="0")
    assert "Successfully tagged classic:latest" in told
    assert docker(builds, tmp_path, "run", "--rm", "classic") == "classic\n"
    assert "hyper-builder" not in docker(builds, tmp_path, "ps", "-a")


def buildx(scratch: Path) -> Path:
    """Debian's buildx, fetched once."""
    made = cache_directory("clients") / "buildx"
    if not made.exists():
        root = scratch / "buildx"
        command = ["mmdebstrap", "--quiet", "--variant=extract", "--include=docker-buildx", hyperbuilder.SUITE, root]
        subprocess.run(command, check=True, capture_output=True)
        made.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / "usr/libexec/docker/cli-plugins/docker-buildx", f"{made}.{os.getpid()}")
        os.replace(f"{made}.{os.getpid()}", made)
    return made


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of Docker's client with Debian's buildx."""
    home = tmp_path_factory.mktemp("docker")
    (home / "cli-plugins").mkdir()
    (home / "cli-plugins/docker-buildx").symlink_to(buildx(home))
    return home


@pytest.mark.slow
def test_buildx_with_a_secret_and_an_image_of_ours(builds: Daemon, tmp_path: Path, plugins: Path) -> None:
    builds.ctl("tag", "busybox", "ours:1")
    (tmp_path / "secret").write_text("hidden\n")
    text = "FROM ours:1\nRUN --mount=type=secret,id=s cp /run/secrets/s /s\nCOPY more /more\nCMD cat /s /more\n"
    where = context(tmp_path / "buildx", text, more="and more\n")
    docker(builds, plugins, "buildx", "build", "--secret", f"id=s,src={tmp_path / 'secret'}", "-t", "x:1", where)
    assert docker(builds, plugins, "run", "--rm", "x:1") == "hidden\nand more\n"


AGENT = """\
FROM busybox AS made
RUN --mount=type=secret,id=s,required=true --mount=type=ssh test -S $SSH_AUTH_SOCK && mkdir /out && ln -s / /out/l && \\
    cp /run/secrets/s /out/s
FROM scratch
COPY --from=made /out /
"""


@pytest.mark.slow
def test_secrets_agents_and_outputs(builds: Daemon, tmp_path: Path) -> None:
    """The builder asks hyperctl during the build, and gives it files instead of an image."""
    where = context(tmp_path / "asks", AGENT)
    (tmp_path / "secret").write_text("hidden\n")
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "agent"))
        agent.listen()
        asked = ("--secret", f"id=s,src={tmp_path / 'secret'}", "--ssh", f"default={tmp_path / 'agent'}")
        builds.ctl("build", *asked, "-o", tmp_path / "tree", where)
        assert (tmp_path / "tree/s").read_text() == "hidden\n" and os.readlink(tmp_path / "tree/l") == "/"
        builds.ctl("build", *asked, "-o", f"type=tar,dest={tmp_path / 'out.tar'}", where)
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert sorted(tar.getnames()) == ["l", "s"]
    assert "secret s: not found" in builds.ctl("build", "--no-cache", where, check=False).stderr
