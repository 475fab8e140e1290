# SPDX-License-Identifier: Apache-2.0
"""Contexts: which hyperd or cluster a command is for."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.client import contexts
from hypercontainer.client.contexts import Contexts, enter
from hypercontainer.errors import Conflict, InvalidArgument, NotFound

HYPERCTL = Path(sys.executable).parent / "hyperctl"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    used = ("HYPER_HOST", "HYPER_CONTEXT", "HYPER_PROJECT", "HYPER_TOKEN", "HYPER_TOKEN_FILE", "HYPER_CERT_PATH",
            "HYPER_TLSCACERT", "HYPER_TLSCERT", "HYPER_TLSKEY")  # fmt: skip
    for name in {*used, *(n for n in os.environ if n.startswith("HYPER_"))}:
        monkeypatch.setenv(name, "")  # what is set by the tested code goes with it, too
        monkeypatch.delenv(name)
    return tmp_path


def ctl(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HYPERCTL, *words], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def test_they_are_made_listed_changed_used_and_removed(home: Path) -> None:
    assert ctl("context", "show").stdout == "default\n" and not (home / "hyper").exists()
    made = ctl(
        "context", "create", "farm", "--host", "tcp://10.0.0.5:2376", "--tlscacert", "ca.pem", "--description", "x"
    )
    assert made.stdout == "farm\n", made.stderr
    assert ctl("context", "create", "cloud", "--kubernetes", "--namespace", "work").stdout == "cloud\n"
    assert Contexts().all == {
        "farm": {"description": "x", "host": "tcp://10.0.0.5:2376", "tlscacert": os.path.abspath("ca.pem")},
        "cloud": {"kubernetes": {"namespace": "work"}},
    }
    assert ctl("context", "use", "farm").stdout == "farm\n"
    rows = json.loads(ctl("context", "ls", "--format", "json").stdout)
    assert [(r["name"], r["kind"], r["current"]) for r in rows] == [
        ("cloud", "kubernetes", False), ("default", "hyperd", False), ("farm", "hyperd", True)
    ]  # fmt: skip
    assert "farm *" in ctl("context", "ls").stdout
    assert ctl("context", "update", "farm", "--description", "", "--host", "/run/x.sock").stdout == "farm\n"
    assert ctl("context", "inspect", "--format", "{{.host}}").stdout == "/run/x.sock\n"
    refused = ctl("context", "rm", "farm")
    assert refused.returncode == 1 and "the context 'farm' is in use" in refused.stderr
    assert ctl("context", "rm", "-f", "farm", "none").stdout == "farm\nnone\n"
    assert (Contexts().current, list(Contexts().all)) == ("default", ["cloud"])
    assert (home / "hyper").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "x"), "a context says where to go"),
        (("create", "default", "--host", "/x"), "'default' is no name of a context"),
        (("create", "a/b", "--host", "/x"), "'a/b' is no name of a context"),
        (("create", "x", "--host", "/x", "--kubernetes"), "a hyperd or a cluster, not both"),
        (("use", "x"), "there is no context 'x'"),
        (("rm", "default"), "the default context cannot be removed"),
        (("update", "default", "--host", "/x"), "the default context says nothing"),
    ],
)
def test_what_is_wrong_is_said(home: Path, words: tuple[str, ...], said: str) -> None:
    done = ctl("context", *words)
    assert done.returncode == 1 and said in done.stderr and not (home / "hyper").exists()


def test_a_damaged_file_is_named(home: Path) -> None:
    (home / "hyper").mkdir()
    (home / "hyper/contexts.json").write_text("{")
    done = ctl("ps")
    assert done.returncode == 1 and str(home / "hyper/contexts.json") in done.stderr
    assert ctl("--host", "/no/such.sock", "ps").stderr.startswith("hyperctl: cannot connect to hyperd at /no/such.sock")


def test_which_goes_before_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line, HYPER_CONTEXT, HYPER_HOST, the context in use."""
    made = Contexts()
    made.all = {"a": {"host": "/a", "tokenFile": "/t"}, "b": {"host": "/b"}, "k": {"kubernetes": {"namespace": "n"}}}
    made.current = "a"
    made.write()

    def chosen(context: str = "", host: str = "", **environment: str) -> str | None:
        with monkeypatch.context() as m:
            for name in ("HYPER_HOST", "HYPER_CONTEXT", "HYPER_TOKEN", "HYPER_TOKEN_FILE"):
                m.delenv(name, raising=False)
            for name, value in environment.items():
                m.setenv(name, value)
            assert enter(context, host) is None
            return os.environ.get("HYPER_HOST")

    assert chosen() == "/a"
    assert chosen(HYPER_HOST="/h") == "/h"
    assert chosen(HYPER_HOST="/h", HYPER_CONTEXT="b") == "/b"
    assert chosen("a", HYPER_HOST="/h", HYPER_CONTEXT="b") == "/a"
    assert chosen(host="/x") is None  # the command line itself says it
    assert chosen("default", HYPER_HOST="/h") == "/h"
    assert enter("k", "") == {"namespace": "n"}
    with pytest.raises(Conflict):
        enter("a", "/x")
    with pytest.raises(NotFound):
        enter("none", "")
    monkeypatch.setenv("HYPER_TOKEN", "of another")
    enter("a", "")
    assert (os.environ.get("HYPER_TOKEN"), os.environ["HYPER_TOKEN_FILE"]) == (None, "/t")


def test_nothing_is_read_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "Contexts", None)
    assert enter("", "") is None


def test_a_cluster_has_its_own_verbs() -> None:
    assert ctl("context", "create", "k", "--kubernetes", "--kubeconfig", "/no/such/file").returncode == 0
    refused = ctl("--context", "k", "build", ".")
    assert refused.returncode == 1 and "`build` is no verb of a cluster" in refused.stderr
    assert "hyperctl --context default build" in refused.stderr
    assert "hyperctl --context default image ls" in ctl("--context", "k", "image", "ls").stderr
    missing = ctl("ps", HYPER_CONTEXT="k")
    assert missing.returncode == 1 and "/no/such/file" in missing.stderr
    assert "PersistentVolumeClaim" in ctl("--context", "k", "run", "--help").stdout
    assert ctl("--context", "k", "container", "ls").stderr == missing.stderr


def test_a_name_that_is_none_is_no_way_around() -> None:
    done = ctl("--context", "none", "run", "busybox")
    assert done.returncode == 125 and "there is no context 'none'" in done.stderr


def test_the_file_is_whole_or_as_it_was(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Contexts()
    made.all = {"a": {"host": "/a"}}
    made.write()
    made.all = {"b": {"host": object()}}  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        made.write()
    assert list(Contexts().all) == ["a"]
    assert os.listdir(home / "hyper") == ["contexts.json"]
    with pytest.raises(InvalidArgument, match="cannot be read"):
        (home / "hyper/contexts.json").write_text("[]")
        Contexts()


def completed(*words: str) -> list[str]:
    """What a shell offers for the last word."""
    done = ctl(
        _HYPERCTL_COMPLETE="bash_complete", COMP_WORDS=" ".join(["hyperctl", *words]), COMP_CWORD=str(len(words))
    )
    assert not done.stderr
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_names_are_completed_of_the_context(home: Path) -> None:
    with serving(home / "a.sock", "of-a"), serving(home / "b.sock", "of-b"):
        for name in ("a", "b"):
            assert ctl("context", "create", name, "--host", str(home / f"{name}.sock")).returncode == 0
        assert ctl("context", "create", "cloud", "--kubernetes").returncode == 0
        assert ctl("context", "use", "a").returncode == 0
        assert completed("rm", "") == ["of-a"] and completed("--context", "b", "rm", "") == ["of-b"]
        assert completed("--context", "cloud", "rm", "") == [] and completed("--context", "none", "rm", "") == []
    assert completed("--context", "c") == ["cloud"]
    assert completed("project", "quota", "web", "se") == ["security_groups="]
    assert (
        completed("context", "use", "") == ["default", "a", "b", "cloud"] and completed("context", "create", "") == []
    )


@contextlib.contextmanager
def serving(path: Path, name: str) -> Iterator[None]:
    """A hyperd that has one container."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps([{"name": name}]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return str(path)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    "contexts",
    [[], {"a": 5}, {"a": {}}, {"a": {"host": 5}}, {"a": {"kubernetes": "x"}}, {"a": {"kubernetes": {"namespace": 5}}}],
)
@pytest.mark.parametrize("words", [("ps",), ("context", "ls"), ("--context", "a", "ps")])
def test_what_is_no_context_is_said(home: Path, contexts: object, words: tuple[str, ...]) -> None:
    (home / "hyper").mkdir()
    (home / "hyper/contexts.json").write_text(json.dumps({"current": "a", "contexts": contexts}))
    done = ctl(*words)
    assert done.returncode == 1 and str(home / "hyper/contexts.json") in done.stderr, done
