# SPDX-License-Identifier: Apache-2.0
"""What a template's sandbox runs from its beginning, and when it is ready."""

from __future__ import annotations

import asyncio

from ...errors import DeadlineExceeded, StartFailed
from ...sdk import AsyncSandbox
from .commands import shell_of
from .templates import Template

READY = 300.0  # seconds, which their own service waits
_PAUSE = 0.5  # seconds between two tries
_ENDED = "hyper-e2b: the start command has ended with exit code"
_LINES = 10  # last lines of its output, in which its end is looked for
# What it writes is the sandbox's log, and when it ends the sandbox stays. The first argument is the start command, the
# others are variables.
_SCRIPT = f"""
shell=/bin/sh
[ -x /bin/bash ] && shell=/bin/bash
start=$1
shift
[ $# = 0 ] || export "$@"
"$shell" -l -c "$start" </dev/null || echo "{_ENDED} $?" >&2
exec sleep 1000000000
"""


def command_of(template: Template) -> list[str] | None:
    """Of its sandboxes; None where nothing is to be started."""
    if not template.start:
        return None
    return ["/bin/sh", "-c", _SCRIPT, "start", template.start, *(f"{k}={v}" for k, v in template.env.items())]


async def wait_ready(sandbox: AsyncSandbox, template: Template, limit: float = READY) -> None:
    """Until its ready command succeeds, where it has one.

    :raise StartFailed: the start command failed first. :raise DeadlineExceeded: it does not within `limit` seconds.
    """
    if not template.ready:
        return
    command = [await shell_of(sandbox), "-l", "-c", template.ready]
    try:
        async with asyncio.timeout(limit):
            while not (await sandbox.run(command, env=template.env, timeout=limit)).ok:
                await _check_start(sandbox, template)
                await asyncio.sleep(_PAUSE)
    except TimeoutError:
        raise DeadlineExceeded(f"the ready command did not succeed within {limit:g} s: {template.ready}") from None


async def _check_start(sandbox: AsyncSandbox, template: Template) -> None:
    if template.start:
        lines = [line.text async for line in sandbox.logs(tail=_LINES)]
        if ended := [line for line in lines if line.startswith(_ENDED)]:
            said = "\n".join(line for line in lines if line not in ended)
            raise StartFailed(ended[-1].removeprefix("hyper-e2b: ") + (f": {said}" if said else ""))
