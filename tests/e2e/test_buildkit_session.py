# SPDX-License-Identifier: Apache-2.0
"""`hyperctl build` with what takes a session, asked by a real BuildKit: the builder's dockerd, on this host."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from click.testing import CliRunner, Result

from hypercontainer.client.api import Client
from hypercontainer.client.base import raise_error
from hypercontainer.client.transport import Connection, Response
from hypercontainer.errors import HyperError
from hypercontainer.hyperctl import build as command
from hypercontainer.images.builtin import _find_busybox, _layer
from tests.builds.cases import CASES
from tests.builds.image import differences, read
from tests.builds.outside import docker, dockerd
from tests.engine.fake_dockerd import made

from .test_build import buildx

_METHOD = "X-Docker-Expose-Session-Grpc-Method"
DOCKERFILE = """\
FROM busybox AS made
RUN --mount=type=secret,id=s,required=true --mount=type=ssh test -S $SSH_AUTH_SOCK && mkdir /out && \\
    cp /run/secrets/s /out/s && ln -s / /out/l && ln /out/s /out/same && mkdir -m 2750 /out/d && \\
    head -c 300000 /dev/zero >/out/d/zeros
FROM scratch
COPY --from=made /out /
"""
AGENT = """\
FROM busybox AS made
COPY relay /
RUN --mount=type=ssh,id=mine echo question | /relay $SSH_AUTH_SOCK 5 >/answer
FROM scratch
COPY --from=made /answer /
"""


class Directly(Client):
    """hyperd's part, without what it adds: its routes are dockerd's."""

    def open(
        self, method: str, route: str, query: Any = None, *, body: bytes | Iterable[bytes] = b"",
        headers: dict[str, str] | None = None,
    ) -> Response:  # fmt: skip
        path, _, asked = route.partition("?")
        sent = dict(headers or {})
        if path == "/build/session":
            given = parse_qsl(asked)
            sent["X-Docker-Expose-Session-Uuid"] = dict(given)["id"]
            sent[_METHOD] = f"\r\n{_METHOD}: ".join(value for name, value in given if name == "method")
            path, asked = "/session", ""
        elif path == "/build":
            asked += "&networkmode=host"
            sent["Content-Type"] = "application/x-tar"
        elif path == "/images/inspect":
            path, asked = "/_ping", ""
        response = Connection(self.path).request(method, f"/v1.45{path}?{asked}", sent, body)
        if response.status >= 400:
            raise_error(response.read(), response.status)
        return response


@pytest.fixture(scope="module")
def socket_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("outside")
    with dockerd(directory) as host:
        docker(host, "load", "-i", _busybox(directory / "busybox.tar"))
        yield host.removeprefix("unix://")
    shutil.rmtree(directory)


def _busybox(path: Path) -> Path:
    """An image of busybox, as docker load takes it."""
    path.write_bytes(made(["busybox:latest"], "sh", _layer(_find_busybox()))[1])
    return path


Built = Callable[..., Result]


@pytest.fixture
def built(socket_path: str, monkeypatch: pytest.MonkeyPatch) -> Built:
    monkeypatch.setattr(command, "client", lambda: Directly(socket_path))

    def run(*arguments: str | Path) -> Result:
        return CliRunner().invoke(command.build, list(map(str, arguments)))

    return run


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (root := tmp_path / "context").mkdir()
    (root / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "secret").write_text("hidden\n")
    return root


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[list[str]]:
    """The flags by which it asks for a secret and an agent."""
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "agent"))
        agent.listen()
        yield ["--secret", f"id=s,src={tmp_path / 'secret'}", "--ssh", f"default={tmp_path / 'agent'}"]


def test_a_tree(built: Built, context: Path, asked: list[str], tmp_path: Path) -> None:
    done = built(*asked, "-o", tmp_path / "tree", context)
    assert done.exit_code == 0, (done.output, done.exception)
    tree = tmp_path / "tree"
    assert (tree / "s").read_text() == "hidden\n" and (tree / "d/zeros").read_bytes() == bytes(300000)
    assert os.readlink(tree / "l") == "/" and (tree / "same").samefile(tree / "s")
    assert (tree / "d").stat().st_mode & 0o7777 == 0o2750


def test_a_tar(built: Built, context: Path, asked: list[str], tmp_path: Path) -> None:
    done = built(*asked, "--output", f"type=tar,dest={tmp_path / 'out.tar'}", context)
    assert done.exit_code == 0, (done.output, done.exception)
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert sorted(name.strip("/") for name in tar.getnames()) == ["d", "d/zeros", "l", "s", "same"]
        found = tar.extractfile("s") or tar.extractfile("same")
        assert found and found.read() == b"hidden\n"


def test_a_secret_that_was_not_given(built: Built, context: Path, asked: list[str]) -> None:
    done = built(*asked[2:], "--no-cache", context)
    assert isinstance(done.exception, HyperError) and "secret s: not found" in str(done.exception)


def test_an_agent_answers(built: Built, socket_path: str, tmp_path: Path) -> None:
    """What a step says to the agent's socket arrives at the agent of this host, and its answer there."""
    (root := tmp_path / "context").mkdir()
    shutil.copy(Path(socket_path).parents[1] / "usr/sbin/relay", root / "relay")
    (root / "Dockerfile").write_text(AGENT)
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "agent"))
        agent.listen()

        def answer() -> None:
            client, _ = agent.accept()
            with client:
                client.sendall(b"answer to " + client.recv(100))

        answering = threading.Thread(target=answer, daemon=True)
        answering.start()
        done = built("--ssh", f"mine={tmp_path / 'agent'}", "-o", tmp_path / "out", root)
        assert done.exit_code == 0, (done.output, done.exception)
        answering.join(20)
    assert (tmp_path / "out/answer").read_text() == "answer to question\n"


def test_files_about_an_image(built: Built, context: Path, asked: list[str], tmp_path: Path) -> None:
    flags = ["--iidfile", tmp_path / "id", "--metadata-file", tmp_path / "about", "--cache-to", "type=inline"]
    flags += ["--add-host", "other=1.2.3.4", "--label", "a=b", "-t", "session:1"]
    done = built(*asked, *flags, context)
    assert done.exit_code == 0, (done.output, done.exception)
    about = json.loads((tmp_path / "about").read_text())
    assert about["containerimage.config.digest"] == (tmp_path / "id").read_text()
    assert about["image.name"] == "docker.io/library/session:1"


@pytest.fixture(scope="module")
def own_client(socket_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., bytes]]:
    """Docker's own client with buildx, on the same dockerd; what it prints."""
    home = tmp_path_factory.mktemp("docker")
    (home / "cli-plugins").mkdir()
    (home / "cli-plugins/docker-buildx").symlink_to(buildx(home))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DOCKER_CONFIG", str(home))
        yield lambda *command: docker(f"unix://{socket_path}", *command).stdout


@pytest.mark.slow
def test_contexts_are_as_dockers_own_client_sends_them(
    built: Built, own_client: Callable[..., bytes], tmp_path: Path
) -> None:
    """Dockerfiles of tests/builds, whose images and configurations are the same by both clients."""
    found = {}
    for case in CASES:
        root, begun = case.make(tmp_path), int(time.time())
        options = [option.format(root) for option in case.options]
        own_client("buildx", "build", "-q", "--provenance=false", "-t", f"compare:{case.name}", *options, root)
        theirs = read(own_client("save", f"compare:{case.name}"))
        # Without the cache, in which the files of the other context would be.
        done = built("--no-cache", "-q", "-t", f"compare:{case.name}", *options, root)
        assert done.exit_code == 0, (case.name, done.output, done.exception)
        if differs := differences(read(own_client("save", f"compare:{case.name}")), theirs, begun):
            found[case.name] = differs
    assert found == {}
