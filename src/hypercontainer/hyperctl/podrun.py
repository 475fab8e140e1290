# SPDX-License-Identifier: Apache-2.0
"""Pods from files: what `run -p`, `create -p`, `pod create` and `pod run` share."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import msgspec

from ..client.api import Client, container_route, pod_route
from ..errors import HyperError, NotFound
from ..model.status import Container, ContainerStatus, Image, PodDetails
from ..podfile.document import Podfile
from ..podfile.load import images, load
from .context import client
from .pulling import pull_image

_ENDED = (ContainerStatus.EXITED, ContainerStatus.CREATED)


def pull_missing(c: Client, names: list[str], *, quiet: bool) -> None:
    """The images that the store does not have."""
    for name in names:
        try:
            c.call(Image, "GET", "/images/inspect", {"name": name})
        except NotFound:
            if not quiet:
                print(f"Unable to find image {name!r} locally", file=sys.stderr)
            pull_image(c, name, quiet=quiet)


def send(c: Client, podfile: Podfile) -> PodDetails:
    # Without what has its default: the daemon may be of another version.
    body = {k: v for k, v in msgspec.to_builtins(podfile).items() if v not in ("", [], {}, None)}
    return c.call(PodDetails, "POST", "/pods", body=body)


def create_pod(c: Client, path: str, *, name: str, quiet: bool) -> PodDetails:
    """Read a file, pull what is missing, create the pod."""
    loaded = load(path, name=name)
    for what in loaded.unmapped:
        print(f"hyperctl: {path}: {what} has no counterpart here and is ignored", file=sys.stderr)
    pull_missing(c, images(loaded.podfile), quiet=quiet)
    return send(c, loaded.podfile)


def run_pod(path: str, *, name: str, attach: bool, remove: bool, quiet: bool) -> int:
    """Create and start; a pod that does not start is removed again."""
    c = client()
    details = create_pod(c, path, name=name, quiet=quiet)
    pod = details.pod
    try:
        c.do("POST", pod_route(pod.id, "/start"))
    except BaseException:
        with contextlib.suppress(HyperError):
            c.do("DELETE", pod_route(pod.id), {"force": True})
        raise
    if not attach:
        print(pod.id)
        return 0
    try:
        follow(c, details.containers)
        return worst_status(c, details)
    finally:
        if remove:
            c.do("DELETE", pod_route(pod.id), {"force": True})


def worst_status(c: Client, details: PodDetails) -> int:
    """The first exit code that is not 0."""
    codes = [m.state.exit_code for m in c.call(PodDetails, "GET", pod_route(details.pod.id)).containers]
    return next((code for code in codes if code), 0)


def follow(c: Client, containers: list[Container], *, past_only: bool = False, tail: str | None = None) -> None:
    """Print each container's lines behind its name, until all have ended."""
    import threading

    width = max((len(m.name) for m in containers), default=0)
    lock = threading.Lock()

    def copy(container: Container) -> None:
        query = {"follow": not past_only, "tail": tail}
        with contextlib.suppress(HyperError):  # the daemon went away, or the container was removed
            for line in whole_lines(c.lines("GET", container_route(container.id, "/logs"), query)):
                with lock:
                    print(f"{container.name:<{width}} | {line}", flush=True)

    threads = [threading.Thread(target=copy, args=(m,), daemon=True) for m in containers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def whole_lines(records: Iterator[dict[str, str]]) -> Iterator[str]:
    """Lines without their ends; those of the two streams are not mixed."""
    rest = {"stdout": "", "stderr": ""}
    for record in records:
        *lines, rest[record["stream"]] = (rest[record["stream"]] + record["log"]).split("\n")
        yield from lines
    yield from filter(None, rest.values())
