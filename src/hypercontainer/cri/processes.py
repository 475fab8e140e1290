# SPDX-License-Identifier: Apache-2.0
"""RuntimeService: further processes in containers."""

from __future__ import annotations

from typing import Any

from ..errors import Unsupported
from ..model.specs import ExecSpec
from . import api, records
from .call import Call

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


async def streamed(c: Call) -> Any:
    """:raise Unsupported: always."""
    raise Unsupported("exec, attach and port-forward by streams are not served yet", hint="use ExecSync")


METHODS = {"ExecSync": exec_sync, "Exec": streamed, "Attach": streamed, "PortForward": streamed}
