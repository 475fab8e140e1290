# SPDX-License-Identifier: Apache-2.0
"""An agent of smolagents whose code runs in a sandbox; its model is a list of what it says."""

from __future__ import annotations

from typing import Any

import pytest
from smolagents import CodeAgent, Tool
from smolagents.models import ChatMessage, MessageRole, Model
from smolagents.utils import AgentError

from hypercontainer.integrations.smolagents import SandboxExecutor

from .conftest import Daemon
from .python_image import with_python

SAYS = (
    "<code>\nimport platform\nx = doubled(value) + 1\nprint('release', platform.release())\n</code>",
    "<code>\nfinal_answer({'x': x, 'kernel': platform.release()})\n</code>",
)


class Doubled(Tool):  # type: ignore[misc]
    name = "doubled"
    description = "Twice a number."
    inputs = {"number": {"type": "integer", "description": "the number"}}  # noqa: RUF012
    output_type = "integer"

    def forward(self, number: int) -> int:
        return number * 2


class Says(Model):  # type: ignore[misc]
    """One thing after the other."""

    def __init__(self) -> None:
        super().__init__()
        self._left = list(SAYS)

    def generate(self, messages: Any, **_: Any) -> ChatMessage:
        return ChatMessage(role=MessageRole.ASSISTANT, content=self._left.pop(0))


@pytest.mark.slow
def test_an_agent(hyper: Daemon) -> None:
    options = {"image": with_python(hyper), "memory": "512m", "host": str(hyper.socket), "timeout": 200}
    with SandboxExecutor(**options) as executor:
        agent = CodeAgent(tools=[Doubled()], model=Says(), executor=executor, max_steps=3, verbosity_level=0)
        found = agent.run("double it", additional_args={"value": 20})
        assert found["x"] == 41 and "hyper" in found["kernel"], "in a machine of ours, with tools and variables"
        assert executor("x + 1").output == "42"
        with pytest.raises(AgentError, match="division by zero"):
            executor("1 / 0")
