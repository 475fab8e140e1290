# SPDX-License-Identifier: Apache-2.0
"""Pods from files: what `run -p`, `create -p`, `pod create` and `pod run` share."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from ..client.api import Client, container_route, pod_route
from ..client.sources import is_place
from ..errors import HyperError, NotFound, Unsupported
from ..model.status import Container, ContainerStatus, PodDetails
from ..model.units import parse_size
from ..podfile.document import Container as PodContainer
from ..podfile.document import Podfile
from ..podfile.load import images, load
from .context import client
from .lifetime import podfile_lifetime
from .pulling import has_image, pull_image, take_image
from .standard import print_made, warn

_POLL = 0.3  # seconds between looks at a pod that starts


def take_images(c: Client, podfile: Podfile, *, quiet: bool) -> Podfile:
    """The podfile with names for images in archives and other such places, which are taken from there."""
    wanted = images(podfile)
    taken = {name: take_image(c, name, platform=wanted[name], quiet=quiet) for name in wanted if is_place(name)}
    for name in wanted:
        if name.startswith(("aci:", "sha512-")):
            from .appc import load_image, name_of, of_id

            taken[name] = of_id(c, name) if name.startswith("sha512-") else name_of(load_image(c, name, quiet=quiet))

    def named(containers: list[PodContainer]) -> list[PodContainer]:
        return [msgspec.structs.replace(m, image=taken.get(m.image, m.image)) for m in containers]

    return msgspec.structs.replace(
        podfile, init_containers=named(podfile.init_containers), containers=named(podfile.containers)
    )


def pull_missing(c: Client, wanted: dict[str, str], *, quiet: bool) -> None:
    """The images that the store does not have, by their names, with their platforms."""
    for name, platform in wanted.items():
        if not has_image(c, name, platform):
            if not quiet:
                print(f"Unable to find image {name!r} locally", file=sys.stderr)
            pull_image(c, name, platform=platform, quiet=quiet)


def send(c: Client, podfile: Podfile) -> PodDetails:
    # Without what has its default: the daemon may be of another version.
    body = {k: v for k, v in msgspec.to_builtins(podfile).items() if v not in ("", [], {}, None)}
    made = c.call(PodDetails, "POST", "/pods", body=body)
    warn("; ".join(made.warnings))
    return made


def create_pod(c: Client, path: str, *, name: str, quiet: bool) -> PodDetails:
    """Read a file, pull what is missing, create the pod."""
    loaded = load(path, name=name)
    for what in loaded.unmapped:
        print(f"hyperctl: {path}: {what} has no counterpart here and is ignored", file=sys.stderr)
    podfile = take_images(c, loaded.podfile, quiet=quiet)
    pull_missing(c, images(podfile), quiet=quiet)
    return send(c, podfile)


def run_pod(path: str, *, name: str, attach: bool, remove: bool, quiet: bool) -> int:
    """Create and start; a pod that does not start is removed again."""
    c = client()
    details = create_pod(c, path, name=name, quiet=quiet)
    pod = details.pod
    try:
        start_pod(c, pod.id)
    except BaseException as error:
        with contextlib.suppress(HyperError):
            c.do("DELETE", pod_route(pod.id), {"force": True})
        if isinstance(error, HyperError) and "hyperctl logs" in (error.hint or ""):  # they went with the pod
            error.hint = (
                f"the pod was removed again; `hyperctl pod create {path}` and `hyperctl pod start {pod.name}` "
                "keep it with its logs"
            )
        raise
    if not attach:
        print_made(pod.id, "the pod")
        return 0
    try:
        follow(c, details.containers)
        return worst_status(c, details)
    finally:
        if remove:
            c.do("DELETE", pod_route(pod.id), {"force": True})


def start_pod(c: Client, key: str) -> None:
    """Start; a terminal is told of each container as it comes up, as that may take a while.

    :raise HyperError: why the pod did not start.
    """
    if not sys.stderr.isatty():
        c.do("POST", pod_route(key, "/start"))
        return
    from concurrent.futures import ThreadPoolExecutor

    told: dict[str, str] = {}
    pool = ThreadPoolExecutor(1)
    try:
        starting = pool.submit(c.do, "POST", pod_route(key, "/start"))
        while True:
            finished = starting.done()
            with contextlib.suppress(HyperError):  # the start's own error says more
                _print_states(c.call(PodDetails, "GET", pod_route(key)).containers, told)
            if finished:
                break
            with contextlib.suppress(TimeoutError):
                starting.result(_POLL)
    finally:
        pool.shutdown(wait=False)  # an interrupt does not wait for the start
    starting.result()


def _print_states(containers: list[Container], told: dict[str, str]) -> None:
    width = max((len(m.name) for m in containers), default=0)
    for m in containers:
        state = str(m.state.status) + (f", {m.state.health.status}" if m.state.health and m.health else "")
        if m.state.status is not ContainerStatus.CREATED and told.get(m.name) != state:
            told[m.name] = state
            print(f"{m.name:<{width}}  {state}", file=sys.stderr, flush=True)


def worst_status(c: Client, details: PodDetails) -> int:
    """The first exit code that is not 0."""
    codes = [m.state.exit_code for m in c.call(PodDetails, "GET", pod_route(details.pod.id)).containers]
    return next((code for code in codes if code), 0)


@contextlib.contextmanager
def _waiting_at_least(c: Client, container: Container, past_only: bool) -> Iterator[None]:
    """A container without a log is waited for all the same."""
    try:
        yield
    except Unsupported:
        if not past_only:
            c.do("POST", container_route(container.id, "/wait"))


def follow(c: Client, containers: list[Container], *, past_only: bool = False, tail: str | None = None) -> None:
    """Print each container's lines behind its name, until all have ended."""
    import threading

    width = max((len(m.name) for m in containers), default=0)
    lock = threading.Lock()

    def copy(container: Container) -> None:
        query = {"follow": not past_only, "tail": tail}
        with contextlib.suppress(HyperError), _waiting_at_least(c, container, past_only):
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


def details(c: Client, key: str) -> PodDetails:
    return c.call(PodDetails, "GET", pod_route(key))


def member(c: Client, pod: str, name: str) -> Container:
    """The container of that name, alias or id; the first one for "".

    :raise NotFound: the pod has none such.
    """
    found = [
        m
        for m in details(c, pod).containers
        if not name or name in (m.name, m.spec.name, *m.spec.aliases) or m.id.startswith(name)
    ]
    plain = [m for m in found if not m.spec.init] or found
    if not plain:
        raise NotFound(
            f"pod {pod} has no container {name}" if name else f"pod {pod} has no container",
            hint="see `hyperctl pod inspect`",
        )
    return plain[0]


def container_of(c: Client, name: str) -> Container:
    """The container of that name, or the first one of the pod of that name, as the original did.

    :raise NotFound: neither is there.
    """
    try:
        return c.call(Container, "GET", container_route(name))
    except NotFound as error:
        try:
            return member(c, name, "")
        except NotFound:
            raise error from None


def empty_pod(name: str, o: dict[str, Any]) -> dict[str, Any]:
    """The podfile that the options of `pod create` make."""
    from .options import pairs, parse_ports

    labels = pairs(o["label"], "label", need_value=False)
    ports = [
        {"hostPort": p.host_port or "", "containerPort": p.container_port, "protocol": p.protocol, "hostIP": p.host_ip}
        for p in parse_ports(o["publish"])
    ]
    return {
        "id": name, "hostname": o["hostname"], "labels": labels, "portmappings": ports,
        "network": o["network"][0] if o["network"] else "", "networks": [{"name": n} for n in o["network"][1:]],
        "driver": o["driver"], "exitPolicy": o["exit_policy"], "shmSize": o["shm_size"] or 64,
        "devices": list(o["device"]), **podfile_lifetime(o),
        "resource": {
            "size": o["size"], "vcpu": o["cpus"], "memory": parse_size(o["memory"]) >> 20 if o["memory"] else 0,
        },
    }  # fmt: skip
