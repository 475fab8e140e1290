# SPDX-License-Identifier: Apache-2.0
"""Verbs in a cluster, against a small API server: what becomes of a Pod and of who waits for it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from hypercontainer.errors import StartFailed, Unavailable
from hypercontainer.hyperctl.cluster.attached import exit_status
from hypercontainer.hyperctl.cluster.connection import Cluster, explained
from hypercontainer.hyperctl.cluster.progress import until_ended

LIST, POD = "1000", "5"  # versions: the Pod has not changed for long
RUNNING: dict[str, Any] = {"running": {}}
KUBECONFIG = {
    "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": {}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
}  # fmt: skip


def ended(code: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": code}}


class Server:
    """One Pod, `main`, whose state each watch moves on."""

    def __init__(self, *states: dict[str, Any]) -> None:
        self.states = list(states)
        self.made = self.deleted = False
        self.log_breaks = False

    def pod(self) -> dict[str, Any]:
        status = {"name": "main", "image": "i", "imageID": "", "ready": True, "restartCount": 0}
        return {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "n", "resourceVersion": POD},
            "spec": {"containers": [{"name": "main", "image": "i"}]},
            "status": {"phase": "Running", "containerStatuses": [{**status, "state": self.states[0]}]},
        }  # fmt: skip

    def watched(self, version: str) -> dict[str, Any]:
        """As a server whose memory does not reach back to the Pod's last change."""
        if version != LIST:
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            return {"type": "ERROR", "object": gone}
        del self.states[0]
        return {"type": "MODIFIED", "object": self.pod()}


class Handler(BaseHTTPRequestHandler):
    of: Server

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path.endswith("/log"):
            self._say(b"said\n", more=100 if self.of.log_breaks else 0)
        elif query.get("watch", "").lower() == "true":
            self._say(json.dumps(self.of.watched(query["resourceVersion"])).encode() + b"\n")
        elif url.path.endswith("/pods"):
            self._json({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": LIST},
                        "items": [] if self.of.deleted else [self.of.pod()]})  # fmt: skip
        else:
            self._json(self.of.pod())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.of.made = True
        self._json(self.of.pod())

    def do_DELETE(self) -> None:
        self.of.deleted = True
        self._json(self.of.pod())

    def _json(self, document: dict[str, Any]) -> None:
        self._say(json.dumps(document).encode())

    def _say(self, body: bytes, more: int = 0) -> None:
        """`more` bytes are promised, and the connection ends without them."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) + more))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The context in use is its namespace `n`."""
    of = Server(RUNNING, ended(3))
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"of": of})) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        address = f"http://127.0.0.1:{http.server_port}"
        config = tmp_path / "kubeconfig"
        config.write_text(json.dumps({**KUBECONFIG, "clusters": [{"name": "c", "cluster": {"server": address}}]}))
        (tmp_path / "hyper").mkdir()
        context = {"kubernetes": {"kubeconfig": str(config), "namespace": "n"}}
        contexts = {"current": "k", "contexts": {"k": context}}
        (tmp_path / "hyper/contexts.json").write_text(json.dumps(contexts))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        for name in ("HYPER_HOST", "HYPER_CONTEXT"):
            monkeypatch.delenv(name, raising=False)
        yield of
        http.shutdown()
        thread.join()


def ctl(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "hyperctl", *words], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_pod_that_has_not_changed_for_long_is_waited_for(server: Server, tmp_path: Path) -> None:
    settings = {"kubeconfig": str(tmp_path / "kubeconfig"), "namespace": "n"}
    assert until_ended(Cluster(settings), "p") == 3


def test_a_pod_runs_and_stays_or_goes(server: Server) -> None:
    done = ctl("run", "--name", "p", "busybox")
    assert (done.returncode, done.stdout, server.made, server.deleted) == (3, "said\n", True, False), done.stderr
    server.states = [RUNNING, ended(0)]
    assert ctl("run", "--rm", "--name", "p", "busybox").returncode == 0 and server.deleted


def test_a_program_goes_on_when_the_connection_to_it_breaks(server: Server) -> None:
    server.log_breaks = True
    done = ctl("run", "--name", "p", "busybox")
    assert (done.returncode, server.deleted) == (125, False), done.stderr
    assert "the cluster does not answer" in done.stderr


def test_what_does_not_start_is_removed(server: Server) -> None:
    server.states = [{"waiting": {"reason": "ErrImagePull", "message": "no such image"}}]
    done = ctl("run", "--name", "p", "busybox")
    assert done.returncode == 125 and "no such image" in done.stderr and server.deleted


@pytest.mark.parametrize("words", [("-d", "--rm"), ("--cidfile", "x")])
def test_what_would_be_passed_over_is_refused(server: Server, words: tuple[str, ...]) -> None:
    done = ctl("run", *words, "busybox")
    assert done.returncode == 125 and "is not possible in a cluster of Kubernetes" in done.stderr and not server.made


@pytest.mark.parametrize("words", [("ps",), ("version",), ("inspect", "p"), ("run", "busybox")])
def test_kubernetes_client_may_be_missing(
    server: Server, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "kubernetes.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = ctl(*words)
    assert done.returncode and done.stderr.endswith("is not installed: pip install 'hypercontainer[kubernetes]'\n")


def test_the_exit_status_of_a_command() -> None:
    failed = {"status": "Failure", "message": "command terminated with exit code 7", "reason": "NonZeroExitCode",
              "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}}  # fmt: skip
    assert exit_status(b'{"metadata":{},"status":"Success"}') == 0
    assert exit_status(json.dumps(failed).encode()) == 7
    for message, status in (("/nope: no such file or directory", 127), ("/etc: permission denied", 126)):
        with pytest.raises(StartFailed, match=message) as found:
            exit_status(json.dumps({"status": "Failure", "message": message, "reason": "InternalError"}).encode())
        assert found.value.exit_status == status
    for said in (b"", b"null", b"[]", b"{", b"{}"):
        with pytest.raises(Unavailable, match="ended before the command did"):
            exit_status(said)


def test_a_stream_that_breaks_is_said() -> None:
    from websocket import WebSocketConnectionClosedException

    with pytest.raises(Unavailable, match="the cluster does not answer: lost"), explained("pod p"):
        raise WebSocketConnectionClosedException("lost")
