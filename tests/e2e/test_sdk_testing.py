# SPDX-License-Identifier: Apache-2.0
"""The fixtures for pytest, in runs of pytest of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypercontainer.sdk import Sandbox

from .conftest import Daemon

pytest_plugins = ["pytester"]


@pytest.fixture
def run(hyper: Daemon, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("HYPER_HOST", str(hyper.socket))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"))
    pytester.makeini("[pytest]\nsandbox_image = busybox:latest\n")
    return pytester


def outcomes(pytester: pytest.Pytester, *options: str) -> dict[str, int]:
    done = pytester.runpytest_subprocess("-p", "hypercontainer.testing", "-p", "no:cacheprovider", *options)
    return done.parseoutcomes()


def test_a_sandbox_ends_with_its_test(run: pytest.Pytester, hyper: Daemon) -> None:
    run.makepyfile(
        """
        def test_one(sandbox):
            assert sandbox.image == "busybox:latest"
            assert sandbox.run("uname -s").stdout == "Linux\\n"

        def test_several(sandbox_factory):
            one, other = sandbox_factory(labels={"n": "1"}), sandbox_factory("busybox", env={"A": "b"})
            assert one.id != other.id and other.run("echo $A").stdout == "b\\n"
            raise ValueError("they end all the same")
        """
    )
    assert outcomes(run) == {"passed": 1, "failed": 1}
    assert Sandbox.list(host=str(hyper.socket)) == []


def test_the_image_of_the_command_line(run: pytest.Pytester) -> None:
    run.makepyfile("def test_one(sandbox): pass")
    assert outcomes(run, "--sandbox-image", "/nothing") == {"errors": 1}
