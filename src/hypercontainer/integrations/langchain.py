# SPDX-License-Identifier: Apache-2.0
"""Where the shell of LangChain's agents runs: `ShellToolMiddleware(execution_policy=SandboxExecutionPolicy())`.

It takes the package langchain (`pip install 'hypercontainer[langchain]'`). The middleware keeps one shell for a run of
its agent, and speaks with it by pipes: here those of a `hyperctl run`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from langchain.agents.middleware.shell_tool import BaseExecutionPolicy

from ..sdk.spec import LABEL

_OF_ITS_OWN = "langchain-shell-"  # what the names of workspaces begin with that the middleware makes for itself


@dataclass
class SandboxExecutionPolicy(BaseExecutionPolicy):  # type: ignore[misc]
    """A virtual machine for each shell, of an image that has the middleware's `shell_command`; it goes with the shell.

    A workspace that was named is mounted at its own path; one that the middleware made for itself stays empty.
    """

    image: str = "python:3.12-slim"
    network: bool = True
    memory: str = ""  # such as 512m
    cpus: float = 0  # 0: no limit
    ttl: float = 3600.0  # seconds, after which it is ended, whatever has become of the agent
    host: str = ""  # of hyperd; "": HYPER_HOST's, else this user's own
    options: Sequence[str] = ()  # further ones of `hyperctl run`

    def spawn(self, *, workspace: Path, env: Mapping[str, str], command: Sequence[str]) -> subprocess.Popen[str]:
        """The shell. Its variables go by hyperctl's environment: other users of this host see command lines."""
        ours = {name: value for name, value in env.items() if name not in os.environ}
        words = [word for name, value in env.items() for word in ("-e", name if name in ours else f"{name}={value}")]
        return subprocess.Popen(
            [*self._hyperctl(), *self._run(workspace), *words, *self.options, self.image, *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=1, text=True,
            encoding="utf-8", errors="replace", start_new_session=True, env={**os.environ, **ours},
        )  # fmt: skip

    def _hyperctl(self) -> list[str]:
        return [sys.executable, "-m", "hypercontainer.hyperctl", *(["--host", self.host] if self.host else [])]

    def _run(self, workspace: Path) -> list[str]:
        args = ["run", "-i", "--rm", "-q", "--label", f"{LABEL}=langchain", "--ttl", f"{self.ttl:g}"]
        if not self.network:
            args += ["--network", "none"]
        if self.memory:
            args += ["--memory", self.memory]
        if self.cpus:
            args += ["--cpus", f"{self.cpus:g}"]
        if not workspace.name.startswith(_OF_ITS_OWN):
            args += ["-v", f"{workspace}:{workspace}", "-w", str(workspace)]
        return args
