# SPDX-License-Identifier: Apache-2.0
"""The quick way of hyperctl says the same as its commands."""

from __future__ import annotations

import json
import shlex

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercontainer.hyperctl import quick
from hypercontainer.hyperctl.exec import exec_
from hypercontainer.hyperctl.options import environment, spec_from
from hypercontainer.hyperctl.run import run
from hypercontainer.hyperctl.snapshots import fork
from hypercontainer.model.snapshots import ForkRequest
from hypercontainer.model.specs import ContainerSpec, ExecSpec

RUNS = [
    "busybox",
    "busybox true",
    "--rm busybox sh -c 'echo \"$HOME\" é'",
    "-d --name web nginx",
    "-it busybox",
    "-i -t --rm -e A=1 -e B=x=y --env C= busybox env",
    "-e HYPER_TEST_VARIABLE -e HYPER_TEST_MISSING busybox env",
    "--name=web --hostname=h -h other -w /tmp -u 1000:1000 busybox id",
    "-p 8080:80 --publish=9090:90 nginx",
    "-v data:/data -v other.vol:/srv/x busybox",
    "--network none busybox",
    "--net=user busybox",
    "--network blue busybox",
    "--privileged --read-only --isolation fresh busybox",
    "--isolation=default --driver qemu -q --quiet busybox",
    "-- busybox -x",
    "busybox --rm -d",
]
LEFT_TO_CLICK = [
    "",
    "--rm",
    "--nosuch busybox",
    "--rm=true busybox",
    "-p 80 nginx",
    "-p 127.0.0.1:80:80 nginx",
    "-p 80:80/udp nginx",
    "-p 70000:80 nginx",
    "-p 1-2:1-2 nginx",
    "-v /host:/data busybox",
    "-v data:/data:ro busybox",
    "-v data:data busybox",
    "-v data:/a/../b busybox",
    "-v data:/a/ busybox",
    "-v /data busybox",
    "-e =x busybox",
    "-e 'A B=1' busybox",
    "--env-file f busybox",
    "--network a --network b busybox",
    "--isolation odd busybox",
    "-m 64m busybox",
    "-xrm busybox",
    "--entrypoint sh busybox",
    "-w",
]


def by_click(line: str) -> ContainerSpec:
    context = run.make_context("run", shlex.split(line))
    return spec_from(context.params["image"], context.params["command"], context.params)


@pytest.mark.parametrize("line", RUNS)
def test_run_is_the_same_both_ways(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPER_TEST_VARIABLE", "from here")
    body, found = quick.run_body(shlex.split(line))
    assert msgspec.json.decode(quick._json(body), type=ContainerSpec) == by_click(line)
    assert ("detach" in found) == run.make_context("run", shlex.split(line)).params["detach"]


@pytest.mark.parametrize("line", LEFT_TO_CLICK)
def test_what_it_does_not_know_is_left_to_click(line: str) -> None:
    with pytest.raises(quick._Unknown):
        quick.run_body(shlex.split(line))


@pytest.mark.parametrize(
    "line", ["web true", "-it web sh", "-e A=1 -w /tmp -u root --privileged web sh -c 'exit 3'", "-i web cat -v"]
)
def test_exec_is_the_same_both_ways(line: str) -> None:
    name, body, _ = quick.exec_body(shlex.split(line))
    p = exec_.make_context("exec", shlex.split(line)).params
    spec = ExecSpec(
        command=list(p["command"]),
        env=environment(p["env"], p["env_file"]),
        workdir=p["workdir"],
        user=p["user"],
        tty=p["tty"],
        stdin=p["interactive"],
        privileged=p["privileged"],
        detach=p["detach"],
    )
    assert (name, msgspec.json.decode(quick._json(body), type=ExecSpec)) == (p["container"], spec)


@pytest.mark.parametrize("line", ["web", "-d web true", "--nosuch web true", ""])
def test_exec_that_is_left_to_click(line: str) -> None:
    with pytest.raises(quick._Unknown):
        quick.exec_body(shlex.split(line))


@pytest.mark.parametrize("line", ["web", "-n 10 --name child web", "--count=100 w", "-- web"])
def test_fork_is_the_same_both_ways(line: str) -> None:
    pod, body = quick.fork_body(shlex.split(line))
    p = fork.make_context("fork", shlex.split(line)).params
    spec = ForkRequest(count=p["count"], name=p["name"])
    assert (pod, msgspec.json.decode(quick._json(body), type=ForkRequest)) == (p["pod"], spec)


@pytest.mark.parametrize("line", ["", "web other", "-n 0 web", "-n 101 web", "-n x w", "-n ² w", "-x web", "web -n 2"])
def test_fork_that_is_left_to_click(line: str) -> None:
    with pytest.raises(quick._Unknown):
        quick.fork_body(shlex.split(line))


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("run -d x", ("", "run", ["-d", "x"])),
        ("-H /s version", ("/s", "version", [])),
        ("--host=unix:///s exec a b", ("unix:///s", "exec", ["a", "b"])),
        ("--version", ("", "", [])),
        ("", ("", "", [])),
        ("-H", ("", "", [])),
    ],
)
def test_the_socket_and_the_verb(line: str, parts: tuple[str, str, list[str]]) -> None:
    assert quick.split(line.split()) == parts


def test_help_and_other_verbs_are_left_to_click() -> None:
    assert quick.quick(["run", "--help"]) is None and quick.quick(["ps"]) is None and quick.quick(["pod", "ls"]) is None
    assert quick.quick([]) is None


def test_without_a_daemon_it_is_left_to_click(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert quick.quick(["-H", str(tmp_path_factory.mktemp("q") / "none.sock"), "run", "busybox"]) is None


@given(st.recursive(st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_its_json_is_json(value: object) -> None:
    assert json.loads(quick._json(value)) == value
