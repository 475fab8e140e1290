# SPDX-License-Identifier: Apache-2.0
"""run and create."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click
import msgspec

from ..client.api import Client, container_route
from ..client.sources import is_place
from ..client.stream import require_terminal, window_size
from ..errors import Conflict, HyperError, InvalidArgument, NotFound
from ..model.detach_keys import parse_detach_keys
from ..model.frames import STDERR, STDOUT
from ..model.specs import ContainerSpec
from ..model.status import Container
from .context import client
from .dockerflags import DockerCommand
from .options import container_options, spec_from
from .pulling import has_image, pull_image, take_image
from .standard import complain, naming, print_made, warn
from .stream import stream_of

_SETTINGS = {"ignore_unknown_options": False, "allow_interspersed_args": False, "help_option_names": ["--help"]}


def create_container(c: Client, spec: ContainerSpec, *, quiet: bool) -> Container:
    """Create; pull the image as the policy says."""
    if spec.image.startswith("aci:"):
        from .appc import with_app

        spec = with_app(c, spec, quiet=quiet)
    if is_place(spec.image) and spec.pull != "never":
        spec = msgspec.structs.replace(
            spec, image=take_image(c, spec.image, platform=spec.platform, quiet=quiet), pull="never"
        )
    if spec.pull == "always":
        pull_image(c, spec.image, platform=spec.platform, quiet=quiet)
    try:
        return _create(c, spec)
    except NotFound:
        if spec.pull != "missing" or has_image(c, spec.image, spec.platform):
            raise
    if not quiet:
        print(f"Unable to find image {spec.image!r} locally", file=sys.stderr)
    pull_image(c, spec.image, platform=spec.platform, quiet=quiet)
    return _create(c, spec)


def _create(c: Client, spec: ContainerSpec) -> Container:
    response = c.open("POST", "/containers", body=msgspec.json.encode(spec))
    warn(response.headers.get("hyper-warning", ""))
    return msgspec.json.decode(response.read(), type=Container)


def _write_cidfile(path: str | None, id_: str) -> None:
    if path:
        try:
            with naming(path), open(path, "x") as f:
                f.write(id_)
        except OSError:
            complain(f"the container was made all the same: {id_}")
            raise


def _check_cidfile(path: str | None) -> None:
    if path and os.path.exists(path):
        raise Conflict(f"the file {path} exists", hint="remove it: it names another container")


def attach_to(
    c: Client,
    container: Container,
    *,
    start: bool,
    stdin: bool,
    output: bool = True,
    proxy: bool = True,
    trace: str = "",
    keys: str = "",
    shown: tuple[int, ...] = (STDOUT, STDERR),
) -> int:
    """Attach, and start if asked; the exit code. `trace` names a file for where the time went.

    `keys` detach a terminal; "" are the usual ones.

    :raise InvalidArgument: what is no key.
    """
    parse_detach_keys(keys)
    rows, columns = window_size() if container.spec.tty else (0, 0)
    query = {
        "start": start, "rows": rows, "columns": columns, "noOutput": not output, "trace": bool(trace),
        "detachKeys": keys or None,
    }  # fmt: skip
    sent = time.time_ns()
    with c.upgrade(container_route(container.id, "/attach"), query) as connection:
        terminal = container.spec.tty and stdin
        route = container_route(container.id)
        stream = stream_of(
            connection,
            c.path,
            route,
            stdin=stdin and container.spec.stdin,
            terminal=terminal,
            proxy=proxy,
            shown=shown,
        )
        status = stream.run()
    if trace:
        from .trace import write

        write(trace, sent, stream.trace)
    return status


@click.command(cls=DockerCommand, context_settings=_SETTINGS)
@container_options
@click.option("-c", "short_shares", default="", hidden=True)
@click.option("--attach-stream", multiple=True, type=click.Choice(["stdin", "stdout", "stderr"]), hidden=True)
@click.option("-d", "--detach", is_flag=True, help="Run in the background, print the container's id.")
@click.option("-a", "--attach", is_flag=True, help="With a podfile: follow the output until the pod ends.")
@click.option("--podfile", default="", metavar="FILE", help="Run a pod; `-p FILE` without an image is the same.")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Forward signals to the process.")
@click.option(
    "--trace",
    default="",
    metavar="FILE",
    help="Write where the time went: .svg for a picture, .json for Perfetto, - for a table.",
)
@click.argument("image", required=False)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run(
    image: str | None,
    command: tuple[str, ...],
    detach: bool,
    attach: bool,
    podfile: str,
    sig_proxy: bool,
    trace: str,
    short_shares: str,
    attach_stream: tuple[str, ...],
    **options: Any,
) -> int:
    """Run a command in a new container, in a virtual machine of its own.

    `hyperctl run -p FILE` runs a pod that a podfile, a Kubernetes Pod or (with
    --pod NAME) a Docker compose file describes.

    The exit status is the command's; 128+n when signal n ended it; 125 when
    HyperContainer failed, 126 when the command cannot be executed, 127 when it
    is not there.
    """
    if path := podfile_of(podfile, image, options["publish"]):
        from .podrun import run_pod

        return run_pod(
            path, name=options["pod"] or options["name"], attach=attach, remove=options["rm"], quiet=options["quiet"]
        )
    if not image:
        raise click.UsageError("Missing argument 'IMAGE'.", click.get_current_context())
    options["cpu_shares"] = options["cpu_shares"] or short_shares
    options["interactive"] = options["interactive"] or "stdin" in attach_stream
    if attach_stream and detach:
        raise InvalidArgument("-a attaches, and -d does not", hint="leave one of them out")
    shown = tuple(
        n for n, name in ((STDOUT, "stdout"), (STDERR, "stderr")) if not attach_stream or name in attach_stream
    )
    parse_detach_keys(options["detach_keys"])
    if options["tty"] and options["interactive"] and not detach:
        require_terminal()
    if trace:
        from .trace import check

        check(trace, detach=detach)
    _check_cidfile(options["cidfile"])
    c = client()
    spec = spec_from(image, command, options)
    container = create_container(c, spec, quiet=options["quiet"])
    _write_cidfile(options["cidfile"], container.id)
    if detach:
        try:
            c.do("POST", container_route(container.id, "/start"))
        except HyperError:
            print_made(container.id, "the container")
            raise
        print_made(container.id, "the container")
        return 0
    return attach_to(
        c, container, start=True, stdin=options["interactive"], proxy=sig_proxy, trace=trace,
        keys=options["detach_keys"], shown=shown,
    )  # fmt: skip


def podfile_of(given: str, image: str | None, publish: tuple[str, ...]) -> str:
    """The podfile that is meant, "" for none: the original's -p, where it cannot be a port."""
    if given or image or len(publish) != 1:
        return given
    return publish[0] if publish[0] == "-" or "." in os.path.basename(publish[0]) or os.path.exists(publish[0]) else ""


@click.command(cls=DockerCommand, context_settings=_SETTINGS)
@container_options
@click.option("--podfile", default="", metavar="FILE", help="Create a pod; `-p FILE` without an image is the same.")
@click.option("-c", "--container", "in_pod", is_flag=True, help="The first argument is the pod to join.")
@click.argument("image", required=False)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def create(image: str | None, command: tuple[str, ...], podfile: str, in_pod: bool, **options: Any) -> None:
    """Create a container and print its id; `hyperctl start` runs it."""
    if path := podfile_of(podfile, image, options["publish"]):
        from .podrun import create_pod

        made = create_pod(client(), path, name=options["pod"] or options["name"], quiet=options["quiet"])
        print_made(made.pod.id, "the pod")
        return
    if in_pod and image and command:
        options["pod"], image, command = image, command[0], command[1:]
    if not image:
        raise click.UsageError("Missing argument 'IMAGE'.", click.get_current_context())
    _check_cidfile(options["cidfile"])
    c = client()
    container = create_container(c, spec_from(image, command, options), quiet=options["quiet"])
    _write_cidfile(options["cidfile"], container.id)
    print_made(container.id, "the container")
