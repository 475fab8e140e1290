# SPDX-License-Identifier: Apache-2.0
"""What agents of smolagents run their code in: `CodeAgent(tools, model, executor=SandboxExecutor())`.

It takes the package smolagents (`pip install 'hypercontainer[smolagents]'`), which also has the protocol between an
agent and where its code runs: tools and variables go there as code, and the answer comes back as an exception.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import PIL.Image
from smolagents.local_python_executor import CodeOutput
from smolagents.monitoring import AgentLogger, LogLevel
from smolagents.remote_executors import RemotePythonExecutor
from smolagents.tools import Tool, get_tools_definition_code
from smolagents.utils import AgentError

from ..sdk import CodeResult, Execution, Interpreter, Sandbox
from ..sdk.spec import LABEL

_IMAGE = "python:3.12-slim"
_OF_THE_ANSWER = re.compile("^import (numpy|PIL[.a-zA-Z]*)$", re.MULTILINE)
_WHERE_IT_IS = r"try: import \1\nexcept ImportError: pass"
_START = 120.0  # seconds for the interpreter's start
_INSTALL = 600.0  # seconds to install packages


class SandboxExecutor(RemotePythonExecutor):  # type: ignore[misc]
    """A sandbox for one agent, made of an image that has Python, and ended by `cleanup` or as a context.

    `packages` are installed in it by pip. `timeout`: seconds for each piece of code. `options`: what
    `Sandbox.create` takes besides.
    """

    def __init__(
        self, packages: Sequence[str] = (), *, image: str = _IMAGE, timeout: float = 60.0,
        logger: AgentLogger | None = None, **options: Any,
    ) -> None:  # fmt: skip
        """:raise HyperError: there is no sandbox, or a package cannot be installed."""
        super().__init__([], logger or AgentLogger(level=LogLevel.ERROR))
        self._timeout = timeout
        self._interpreter: Interpreter | None = None
        labels = {LABEL: "smolagents", **options.pop("labels", {})}
        self.sandbox = Sandbox.create(image, labels=labels, **options)
        try:
            self._interpreter = self.sandbox.interpreter(kernel="plain", timeout=_START)
            self.installed_packages = self.install_packages(list(packages))
        except BaseException:
            self.cleanup()
            raise

    def __enter__(self) -> SandboxExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.cleanup()

    def cleanup(self) -> None:
        """End the sandbox."""
        if self._interpreter:
            self._interpreter.close()
        self.sandbox.kill()

    def send_tools(self, tools: dict[str, Tool]) -> None:
        """Their code, and by pip what they import; the final answer imports some for values that are of it alone."""
        if final := tools.get("final_answer"):
            self._patch_final_answer_with_exception(final)
        others = [tool for tool in tools.values() if tool is not final]
        wanted = {package for tool in others for package in tool.to_dict()["requirements"]} - {"smolagents"}
        self.installed_packages += self.install_packages(sorted(wanted - {*self.installed_packages}))
        self.run_code_raise_errors(_OF_THE_ANSWER.sub(_WHERE_IT_IS, get_tools_definition_code(tools)))

    def install_packages(self, additional_imports: list[str]) -> list[str]:
        """By pip, for all that runs in the sandbox."""
        if additional_imports:
            command = ["python3", "-m", "pip", "install", "--quiet", "--root-user-action=ignore", *additional_imports]
            self.sandbox.run(command, check=True, timeout=_INSTALL)
        return additional_imports

    def run_code_raise_errors(self, code: str) -> CodeOutput:
        """Run a piece of code; variables stay.

        :raise AgentError: it raised something, which its agent is to hear of.
        """
        assert self._interpreter
        done = self._interpreter.run(code, timeout=self._timeout)
        if done.error is None:
            return CodeOutput(output=_output(done), logs=done.stdout, is_final_answer=False)
        if done.error.name == self.FINAL_ANSWER_EXCEPTION:
            answer = self._deserialize_final_answer(done.error.value, self.allow_pickle)
            return CodeOutput(output=answer, logs=done.stdout, is_final_answer=True)
        raise AgentError(f"{done.stdout}\nExecuting code yielded an error:\n{done.error.traceback}", self.logger)


def _output(done: Execution) -> Any:
    """The value of the last expression: a picture where it is one, else as Python writes it; None of none."""
    main: CodeResult | None = next((result for result in done.results if result.main), None)
    if main is None:
        return None
    return PIL.Image.open(io.BytesIO(main.png)) if main.png else main.text
