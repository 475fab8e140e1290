# SPDX-License-Identifier: Apache-2.0
"""Where shell commands of OpenAI's agents run: `Agent(tools=[ShellTool(executor=SandboxShell(sandbox))])`.

It takes the package openai-agents (`pip install 'hypercontainer[openai-agents]'`).
"""

from __future__ import annotations

from agents import ShellCallOutcome, ShellCommandOutput, ShellCommandRequest, ShellResult

from ..errors import DeadlineExceeded, NoSpace
from ..sdk import AsyncSandbox

_TIMEOUT = 60.0  # seconds for a command of a call that says nothing else
_KILLED = 128 + 9  # as shells report it


class SandboxShell:
    """An executor of commands, in a sandbox that is the caller's to end."""

    def __init__(self, sandbox: AsyncSandbox, *, timeout: float = _TIMEOUT, user: str = "") -> None:
        """`timeout`: seconds for each command, where the model asks for no other."""
        self._sandbox = sandbox
        self._timeout = timeout
        self._user = user

    async def __call__(self, request: ShellCommandRequest) -> ShellResult:
        """One command after the other, each by a shell of its own; after one that takes too long the others are not
        run. What is wrong with the sandbox itself is raised.
        """
        action = request.data.action
        seconds = action.timeout_ms / 1000 if action.timeout_ms else self._timeout
        found: list[ShellCommandOutput] = []
        for command in action.commands:
            found.append(await self._run(command, seconds))
            if found[-1].status == "timeout":
                break
        return ShellResult(output=found, max_output_length=action.max_output_length)

    async def _run(self, command: str, seconds: float) -> ShellCommandOutput:
        try:
            done = await self._sandbox.run(command, user=self._user, timeout=seconds)
        except DeadlineExceeded as error:
            return ShellCommandOutput("", str(error), ShellCallOutcome("timeout"), command)
        except NoSpace as error:  # it wrote too much, and was killed
            return ShellCommandOutput("", str(error), ShellCallOutcome("exit", _KILLED), command)
        return ShellCommandOutput(done.stdout, done.stderr, ShellCallOutcome("exit", done.exit_code), command)
