# SPDX-License-Identifier: Apache-2.0
"""A test's own namespace of Kubernetes, and shorthands for what is in it."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from typing import Any

from tests.e2e.conftest import wait_for

from .control import Control

LIMIT = 180.0  # seconds for anything that a cluster does
_numbers = itertools.count()


def container(name: str = "main", *command: str, **fields: Any) -> dict[str, Any]:
    """Of the image that each node has."""
    found = {"name": name, "image": "busybox", "imagePullPolicy": "Never", **fields}
    return {**found, "command": list(command)} if command else found


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """One of our runtime class, that ends as soon as it is told to."""
    whole = {
        "runtimeClassName": "hyper", "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False,
        "containers": list(containers), **spec,
    }  # fmt: skip
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": whole}


class Space:
    """Where a test makes what it makes."""

    def __init__(self, cluster: Control, name: str) -> None:
        self.cluster, self.name = cluster, name

    def kubectl(self, *words: str, input: str = "") -> str:
        return self.cluster.kubectl("-n", self.name, *words, input=input)

    def apply(self, *objects: dict[str, Any]) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "-f", "-", input=text)

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def pod(self, name: str) -> Any:
        return self.get("pod", name)

    def pods(self, app: str) -> list[Any]:
        found: list[Any] = self.get("pods", "-l", f"app={app}")["items"]
        return found

    def until_phase(self, name: str, *phases: str) -> Any:
        """The pod, once it is in one of these."""
        seen = None

        def there() -> bool:
            nonlocal seen
            seen = self.pod(name)
            return seen["status"].get("phase") in phases

        self._until(there, f"{name} is {' or '.join(phases)}")
        return seen

    def until_ready(self, *names: str) -> None:
        self.kubectl("wait", "--for=condition=Ready", f"--timeout={LIMIT:g}s", *(f"pod/{n}" for n in names))

    def until_gone(self, name: str) -> None:
        self.kubectl("wait", "--for=delete", f"--timeout={LIMIT:g}s", f"pod/{name}")

    def until(self, name: str, what: str, condition: Any) -> None:
        """Of a pod's whole object."""
        self._until(lambda: condition(self.pod(name)), f"{name}: {what}")

    def _until(self, condition: Any, what: str) -> None:
        try:
            wait_for(condition, what, LIMIT)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.account()}") from None

    def account(self) -> str:
        """What happened, for whom a test fails."""
        return self.kubectl("get", "pods,events", "-o", "wide")

    def exec(self, name: str, *command: str, container: str = "main") -> str:
        return self.kubectl("exec", name, "-c", container, "--", *command)


@contextlib.contextmanager
def space(cluster: Control) -> Iterator[Space]:
    """Empty; all that is in it goes at the end."""
    found = Space(cluster, f"test-{next(_numbers)}")
    cluster.kubectl("create", "namespace", found.name)
    try:
        account = ("get", "serviceaccount", "default", "-n", found.name)
        wait_for(lambda: cluster.tried(*account).returncode == 0, "the namespace's account", LIMIT)
        yield found
    finally:
        cluster.kubectl("delete", "namespace", found.name, f"--timeout={LIMIT:g}s")
