# SPDX-License-Identifier: Apache-2.0
"""hyperctl deployment: what is read of its command lines."""

from __future__ import annotations

from typing import Any, cast

import pytest

from hypercontainer.errors import DeadlineExceeded, InvalidArgument
from hypercontainer.hyperctl import deployments
from hypercontainer.model.deployments import DeploymentInfo, Replica, UpdatePolicy
from hypercontainer.model.specs import ContainerSpec


@pytest.mark.parametrize("line", [
    "--env A=b web busybox httpd -f", "web --env A=b busybox httpd -f", "web --env=A=b busybox httpd -f",
])  # fmt: skip
def test_flags_before_the_image_are_the_updates(line: str) -> None:
    found = deployments.update.make_context("update", line.split()).params
    assert (found["deployment_name"], found["env"], found["image"]) == ("web", ("A=b",), "busybox")
    assert found["command"] == ("httpd", "-f")


@pytest.mark.parametrize("flag", ["-e A=b", "--memory 1g", "--read-only", "-p 80:80"])
def test_an_update_without_an_image_takes_no_flags_of_containers(flag: str) -> None:
    context = deployments.update.make_context("update", ["--drain", "1s", *flag.split(), "web"])
    options = {k: v for k, v in context.params.items() if k not in ("deployment_name", "image", "command")}
    with context, pytest.raises(InvalidArgument, match=r"^--[a-z-]+ says what a container is"):
        deployments._refuse_given(options)


class _Hyperd:
    """That says of a deployment what a list has, and then the last of it."""

    def __init__(self, states: list[str]) -> None:
        self.states = states

    def call(self, *_: Any, **__: Any) -> DeploymentInfo:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        member = Replica(
            container="1" * 64, name="web-1", version=1, state="ready" if state == "complete" else "ended", ip=""
        )
        return DeploymentInfo(
            id="2" * 64, name="web", container=ContainerSpec(image="busybox"), created_at="", replicas=1, version=1,
            address="", ports=[], sticky=False, update=UpdatePolicy(), network="bridge", ready=0,
            state=cast(Any, state), members=[member], message="" if state == "complete" else "web-1 ended with 0",
        )  # fmt: skip


def test_ready_for_a_moment_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(deployments.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(deployments.time, "sleep", lambda _: None)
    with pytest.raises(DeadlineExceeded, match="0 of 1 ready after 20 s: web-1 ended with 0"):
        deployments._wait(cast(Any, _Hyperd(["progressing", "complete", "complete", "progressing"])), "web", 20, 5)
    assert deployments._wait(cast(Any, _Hyperd(["progressing", "complete"])), "web", 20, 5) == 0
