# SPDX-License-Identifier: Apache-2.0
"""Agents of LangChain and of OpenAI's package: `make agents` installs them. Their models are lists of what they say."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from hypercontainer.sdk import AsyncSandbox

from .conftest import Daemon, wait_for


def test_a_shell_of_langchain(hyper: Daemon) -> None:
    pytest.importorskip("langchain.agents")
    from langchain.agents import create_agent
    from langchain.agents.middleware import ShellToolMiddleware
    from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
    from langchain_core.messages import AIMessage, ToolMessage

    from hypercontainer.integrations.langchain import SandboxExecutionPolicy

    class Says(FakeMessagesListChatModel):  # type: ignore[misc]
        def bind_tools(self, *_: Any, **__: Any) -> Any:
            return self

    def call(command: str) -> AIMessage:
        return AIMessage("", tool_calls=[{"name": "shell", "args": {"command": command}, "id": command}])

    model = Says(responses=[call("x=4; uname -n; echo $A"), call("echo $((x + 38)); (exit 3)"), AIMessage("done")])
    shells: list[subprocess.Popen[str]] = []

    class Kept(SandboxExecutionPolicy):
        def spawn(self, **asked: Any) -> subprocess.Popen[str]:
            shells.append(super().spawn(**asked))
            return shells[-1]

    policy = Kept(image="busybox", host=str(hyper.socket), network=False, command_timeout=200)
    shell = ShellToolMiddleware(execution_policy=policy, shell_command="/bin/sh", env={"A": "a secret"})
    said = create_agent(model, middleware=[shell]).invoke({"messages": [("user", "count")]})["messages"]
    first, second = [m.content for m in said if isinstance(m, ToolMessage)]
    (made,) = {line for line in first.splitlines() if len(line) == 12} or {""}
    assert made and "a secret" in first and "42" in second, (first, second)
    wait_for(lambda: hyper.out("ps", "-aq") == "", "the end of the shell")
    for process in shells:  # the middleware leaves them to the garbage collector
        for stream in (process.stdout, process.stderr):
            assert stream is not None and stream.read() == ""
            stream.close()


async def test_commands_of_openais_agents(hyper: Daemon) -> None:
    pytest.importorskip("agents")
    from agents import (
        Agent,
        RunContextWrapper,
        Runner,
        ShellActionRequest,
        ShellCallData,
        ShellCommandRequest,
        ShellTool,
    )
    from agents.testing import ScriptedModel, assistant_message
    from openai.types.responses import ResponseFunctionShellToolCall

    from hypercontainer.integrations.openai_agents import SandboxShell

    async with await AsyncSandbox.create("busybox", host=str(hyper.socket)) as sandbox:
        shell = SandboxShell(sandbox)
        action = {"commands": ["echo here >/x; uname -n", "cat /x; exit 3"], "timeout_ms": 60000}
        call = ResponseFunctionShellToolCall.model_validate(
            {"id": "1", "call_id": "1", "status": "completed", "type": "shell_call", "action": action}
        )
        model = ScriptedModel([[call], [assistant_message("done")]])
        done = await Runner.run(Agent(name="a", model=model, tools=[ShellTool(executor=shell)]), "look")
        outputs = [item for item in done.to_input_list() if item.get("type") == "shell_call_output"]
        assert done.final_output == "done" and "here" in str(outputs) and sandbox.id[:12] in str(outputs)

        late = ShellActionRequest(["sleep 1000", "echo not run"], timeout_ms=1000)
        found = await shell(ShellCommandRequest(RunContextWrapper(None), ShellCallData("2", late)))
        assert [o.status for o in found.output] == ["timeout"] and "was killed" in found.output[0].stderr
