# SPDX-License-Identifier: Apache-2.0
"""How a Pod comes to run, and how it ends, as the API server tells it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ...errors import Conflict, NotFound, StartFailed, Unavailable
from ..standard import complain
from .connection import TIMEOUT, Cluster, explained

START = 600.0  # seconds in which a Pod's image comes and its program starts
_TURN = 60  # seconds after which a watch begins anew: its connection may be dead
_FORGOTTEN = 410  # status: the API server has no longer what a watch was to begin with
_HOPELESS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerError",
             "CreateContainerConfigError", "RunContainerError")  # fmt: skip
_NOT_STARTED = ("StartError", "ContainerCannotRun")
_NOT_FOUND = ("not found", "no such file")


def cannot_run(message: str) -> StartFailed:
    """Of a program that cannot be executed, with Docker's exit status."""
    return StartFailed(message, exit_status=127 if any(w in message.lower() for w in _NOT_FOUND) else 126)


def state_of(pod: Any) -> Any:
    """Of its container; None before a kubelet has it."""
    statuses = pod.status.container_statuses
    return statuses[0].state if statuses else None


def until_started(c: Cluster, name: str) -> Any:
    """The Pod, once its program runs or has run.

    :raise Unavailable: its image is not to be had, or it did not start in time. :raise StartFailed: its program cannot
    be executed. :raise NotFound: somebody removed it.
    """
    told: set[str] = set()

    def started(pod: Any) -> bool:
        state = state_of(pod)
        if pod.status.phase == "Failed" and not (state and state.terminated):
            raise Conflict(f"pod {name} was refused: {pod.status.message or pod.status.reason}")
        _tell_waiting(pod, told)
        if state and state.waiting and state.waiting.reason in _HOPELESS:
            raise Unavailable(
                f"pod {name} does not start: {state.waiting.message or state.waiting.reason}",
                hint="correct what it says; the Pod is gone",
            )
        return bool(state and (state.running or state.terminated))

    return _watched(c, name, started, START)


def until_ended(c: Cluster, name: str) -> int:
    """The exit status of its program, whenever that ends.

    :raise StartFailed: it could not be executed. :raise NotFound: somebody removed the Pod.
    """
    pod = _watched(c, name, lambda pod: bool((state := state_of(pod)) and state.terminated), None)
    ended = state_of(pod).terminated
    if ended.reason in _NOT_STARTED:
        raise cannot_run(ended.message or ended.reason)
    return int(ended.exit_code)


def _tell_waiting(pod: Any, told: set[str]) -> None:
    """Why no node has it, once."""
    for condition in pod.status.conditions or []:
        if condition.reason == "Unschedulable" and condition.message not in told:
            told.add(condition.message)
            complain(f"pod {pod.metadata.name} waits: {condition.message}")


def _listed(c: Cluster, name: str) -> tuple[Any, str]:
    """The Pod, and the version of the list that it is in: a watch begins there. The Pod's own version is that of its
    last change, which the API server may have forgotten.

    :raise NotFound: somebody removed it.
    """
    listed = c.pods.list_namespaced_pod(c.namespace, field_selector=f"metadata.name={name}", _request_timeout=TIMEOUT)
    if not listed.items:
        raise NotFound(f"pod {name} was removed meanwhile")
    return listed.items[0], listed.metadata.resource_version


def _watched(c: Cluster, name: str, done: Callable[[Any], bool], limit: float | None) -> Any:
    """The Pod when this holds of it."""
    end = time.monotonic() + (limit or float("inf"))
    while time.monotonic() < end:
        with explained(f"pod {name}"):
            if (found := _turn(c, name, done)) is not None:
                return found
    raise Unavailable(f"pod {name} did not start within {START:g} s: {_warning(c, name)}")


def _turn(c: Cluster, name: str, done: Callable[[Any], bool]) -> Any:
    """One watch, of `_TURN` seconds; None where it did not come to it."""
    from kubernetes import watch
    from kubernetes.client.exceptions import ApiException

    pod, version = _listed(c, name)
    if done(pod):
        return pod
    watching = watch.Watch()
    try:
        for event in watching.stream(
            c.pods.list_namespaced_pod, c.namespace, field_selector=f"metadata.name={name}",
            resource_version=version, timeout_seconds=_TURN, _request_timeout=2 * _TURN,
        ):  # fmt: skip
            if event["type"] == "DELETED":
                raise NotFound(f"pod {name} was removed meanwhile")
            if done(event["object"]):
                watching.stop()
                return event["object"]
    except ApiException as error:
        if error.status != _FORGOTTEN:
            raise
    return None


def _warning(c: Cluster, name: str) -> str:
    """The last that a node complained of."""
    with explained(f"pod {name}"):
        events = c.pods.list_namespaced_event(
            c.namespace, field_selector=f"involvedObject.name={name},type=Warning", _request_timeout=TIMEOUT
        ).items
    return str(events[-1].message) if events else "its node says nothing of it"
