# SPDX-License-Identifier: Apache-2.0
"""run and exec in a cluster: a Pod's program on this terminal."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import click

from ...client.stream import raw_terminal, require_terminal, window_size
from ...errors import HyperError, InvalidArgument, Unavailable, Unsupported
from ..dockerflags import DockerCommand
from ..options import container_options, spec_from
from ..output import waiting
from ..standard import complain, print_made, write_all
from .connection import TIMEOUT, Cluster, cluster, explained
from .listed import delete, show_logs
from .manifest import CONTAINER, pod_of
from .progress import cannot_run, until_ended, until_started

_CHUNK = 1 << 15
_ERROR, _RESIZE = 3, 4  # channels, of v4.channel.k8s.io
_TURN = 1.0  # seconds between looks at whether the connection is still there


@click.command(cls=DockerCommand, context_settings={"allow_interspersed_args": False, "help_option_names": ["--help"]})
@container_options
@click.option("-d", "--detach", is_flag=True, help="Run in the background, print the Pod's name.")
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run(image: str, command: tuple[str, ...], detach: bool, **options: Any) -> int:
    """Run a command in a new Pod of the context's cluster, on the node that its scheduler chooses.

    `-v NAME:PATH` is the PersistentVolumeClaim NAME, `--tmpfs` an emptyDir in memory. The exit status is the
    command's; 125 when it does not come to run, 126 when it cannot be executed, 127 when it is not there.
    """
    _check(options, detach=detach)
    c = cluster()
    manifest = pod_of(spec_from(image, command, options), c.runtime_class)
    name = str(manifest["metadata"]["name"])
    with explained(f"pod {name}"):
        c.pods.create_namespaced_pod(c.namespace, manifest, _request_timeout=TIMEOUT)
    with contextlib.ExitStack() as stack:
        stack.callback(_remove, c, name)  # of what never ran nothing is left
        with waiting(f"waiting for a node to start pod {name}"):
            until_started(c, name)
        if not options["rm"]:
            stack.pop_all()
        if detach:
            print_made(name, "the Pod")
            return 0
        return _follow(c, name, stdin=options["interactive"], tty=options["tty"])


def _check(options: dict[str, Any], *, detach: bool) -> None:
    """:raise Unsupported: what would be passed over."""
    if options["cidfile"]:
        raise Unsupported("--cidfile is not possible in a cluster of Kubernetes", hint="name the Pod by --name")
    if detach and options["rm"]:
        raise Unsupported("-d with --rm is not possible in a cluster of Kubernetes: nothing there removes an ended Pod",
                          hint="leave --rm out, and remove it by `hyperctl rm`")  # fmt: skip
    if options["tty"] and options["interactive"] and not detach:
        require_terminal()


def _remove(c: Cluster, name: str) -> None:
    with contextlib.suppress(HyperError):
        delete(c, name, force=True)


def _follow(c: Cluster, name: str, *, stdin: bool, tty: bool) -> int:
    if tty:
        _attach(c, name, stdin=stdin, output=True)
    else:
        # All output is in the log, from its beginning on; a connection that is attached may come too late for it.
        if stdin:
            threading.Thread(target=_feed, args=(c, name), daemon=True).start()
        show_logs(c, name, CONTAINER, follow=True)
    return until_ended(c, name)


def _feed(c: Cluster, name: str) -> None:
    """What we are given, for a program whose output comes by another way. The end closes its input (stdinOnce)."""
    try:
        _attach(c, name, stdin=True, output=False)
    except HyperError as error:
        complain(str(error))


def _attach(c: Cluster, name: str, *, stdin: bool, output: bool) -> None:
    with explained(f"pod {name}"):
        carry(_opened(c, name, "attach", stdin=stdin, stdout=output, stderr=False, tty=output), stdin=stdin, tty=output)


def _opened(c: Cluster, name: str, verb: str, **how: Any) -> Any:
    from kubernetes.stream import stream

    call = getattr(c.pods, f"connect_get_namespaced_pod_{verb}")
    return stream(call, name, c.namespace, _preload_content=False, binary=True, **how)


def carry(connection: Any, *, stdin: bool, tty: bool) -> None:
    """Between a Pod's process and our standard streams, until the process or the connection ends."""
    with raw_terminal(tty and stdin), _resizing(connection, enabled=tty):
        if stdin:
            threading.Thread(target=_send_input, args=(connection,), kwargs={"half": tty}, daemon=True).start()
        while connection.is_open():
            connection.update(timeout=_TURN)
            for fd in (1, 2):
                if data := connection.read_channel(fd):
                    write_all(fd, memoryview(data))


def _send_input(connection: Any, *, half: bool) -> None:
    """Also its end: by the protocol where that can say so (v5), else by ending a connection that has nothing else."""
    with contextlib.suppress(Exception):  # the connection is gone, and whoever reads it sees that
        while data := os.read(sys.stdin.fileno(), _CHUNK):
            connection.write_stdin(data)
        if connection.subprotocol.startswith("v5"):
            connection.close_channel(0)
        elif not half:
            connection.close()


@contextlib.contextmanager
def _resizing(connection: Any, *, enabled: bool) -> Iterator[None]:
    def tell(*_: object) -> None:
        rows, columns = window_size()
        if rows:
            connection.write_channel(_RESIZE, json.dumps({"Height": rows, "Width": columns}).encode())

    if not enabled:
        yield
        return
    tell()
    before = signal.signal(signal.SIGWINCH, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


@click.command(name="exec", context_settings={"allow_interspersed_args": False})
@click.option("-i", "--interactive", is_flag=True, help="Keep stdin open.")
@click.option("-t", "--tty", is_flag=True, help="Give the process a terminal.")
@click.option("-d", "--detach", is_flag=True, hidden=True)
@click.option("-e", "--env", multiple=True, hidden=True)
@click.option("-w", "--workdir", default="", hidden=True)
@click.option("-u", "--user", default="", hidden=True)
@click.argument("pod")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(pod: str, command: tuple[str, ...], interactive: bool, tty: bool, **others: Any) -> int:
    """Run a further command in a Pod; the exit status is the command's."""
    if refused := [name for name, value in others.items() if value]:
        raise Unsupported(
            f"--{refused[0]} is not possible in a cluster of Kubernetes", hint="say it in the command: env, cd, su"
        )
    if tty and interactive:
        require_terminal()
    c = cluster()
    container = c.pod(pod).spec.containers[0].name
    with explained(f"pod {pod}"):
        connection = _opened(
            c, pod, "exec", command=list(command), container=container, stdin=interactive, stdout=True,
            stderr=not tty, tty=tty,
        )  # fmt: skip
        if interactive and not tty and not connection.subprotocol.startswith("v5") and not sys.stdin.isatty():
            connection.close()
            raise InvalidArgument(
                "the Pod's node cannot tell a command that its input has ended",
                hint="leave -i out, or use -it",
            )
        carry(connection, stdin=interactive, tty=tty)
        return exit_status(connection.read_channel(_ERROR))


def exit_status(said: bytes) -> int:
    """Of a command, by the v1 Status that its connection ends with.

    :raise StartFailed: it was not executed. :raise Unavailable: the connection ended before it did.
    """
    try:
        status = json.loads(said)
        if status["status"] == "Success":
            return 0
        causes = (status.get("details") or {}).get("causes") or []
        codes = [int(cause["message"]) for cause in causes if cause.get("reason") == "ExitCode"]
        message = str(status.get("message") or status.get("reason") or "it says no more")
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Unavailable(
            "the connection to the Pod ended before the command did", hint="the command may go on in the Pod"
        ) from None
    if not codes:
        raise cannot_run(message)
    return codes[0]
