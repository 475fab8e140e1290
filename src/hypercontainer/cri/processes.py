# SPDX-License-Identifier: Apache-2.0
"""RuntimeService: further processes in containers, and streams."""

from __future__ import annotations

from typing import Any

from ..errors import InvalidArgument
from ..model.specs import ExecSpec
from . import api, records
from .call import Call
from .streaming.tickets import CommandTicket, PortTicket

_KEPT = (8 << 20) - (64 << 10)  # bytes of each output: kubelets take messages of 16 MiB


async def exec_sync(c: Call) -> Any:
    """Its outputs, cut off where they are too long, and its exit code.

    :raise DeadlineExceeded: it took longer than it may, and was killed. :raise StartFailed: there is no such program.
    """
    container, _ = records.container(c.engine, c.request.container_id)
    done = await c.engine.execs.run(
        container.id, ExecSpec(command=list(c.request.cmd)), timeout=c.request.timeout or None, keep=_KEPT
    )
    return api.ExecSyncResponse(stdout=done.output, stderr=done.error_output, exit_code=done.status)


async def exec_(c: Call) -> Any:
    """A URL. :raise InvalidState: the container does not run. :raise InvalidArgument: no command, or no stream."""
    container, _ = records.container(c.engine, c.request.container_id)
    if not c.request.cmd:
        raise InvalidArgument("no command specified", hint="give cmd")
    c.engine.containers.runtime(container)
    return api.ExecResponse(url=c.streaming.url(_ticket(c.request, container.id, tuple(c.request.cmd))))


async def attach(c: Call) -> Any:
    """A URL. :raise InvalidState: the container does not run. :raise InvalidArgument: it has no stdin, or no stream."""
    container, _ = records.container(c.engine, c.request.container_id)
    if c.request.stdin and not container.spec.stdin:
        raise InvalidArgument(f"container {container.name} has no stdin", hint="make it with stdin")
    c.engine.containers.runtime(container)
    return api.AttachResponse(url=c.streaming.url(_ticket(c.request, container.id)))


def _ticket(wanted: Any, container: str, command: tuple[str, ...] = ()) -> CommandTicket:
    if not (wanted.stdin or wanted.stdout or wanted.stderr):
        raise InvalidArgument("no stream is asked for", hint="ask for stdin, stdout or stderr")
    if wanted.tty and wanted.stderr:
        raise InvalidArgument("a terminal has one output: tty and stderr exclude each other", hint="leave stderr out")
    return CommandTicket(
        container, command, tty=wanted.tty, stdin=wanted.stdin, stdout=wanted.stdout, stderr=wanted.stderr
    )


async def port_forward(c: Call) -> Any:
    """A URL. :raise InvalidState: the sandbox is not ready. :raise InvalidArgument: no such port."""
    pod, _ = records.sandbox(c.engine, c.request.pod_sandbox_id)
    c.engine.forwards.check(pod.id, list(c.request.port))
    return api.PortForwardResponse(url=c.streaming.url(PortTicket(pod.id, tuple(c.request.port))))


METHODS = {"ExecSync": exec_sync, "Exec": exec_, "Attach": attach, "PortForward": port_forward}
