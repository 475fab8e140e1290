# SPDX-License-Identifier: Apache-2.0
"""A bundle's hooks that are this host's: programs that hear of the container's state on their stdin."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from ..errors import InvalidState

_TIMEOUT = 120.0  # seconds, where the hook says none


def run_hooks(hooks: list[dict[str, Any]], state: dict[str, Any]) -> None:
    """In turn.

    :raise InvalidState: one failed, with its words; those after it are not run.
    """
    for hook in hooks:
        environment = dict(e.split("=", 1) for e in hook.get("env") or [] if "=" in e)
        timeout = hook.get("timeout") or _TIMEOUT
        try:
            done = subprocess.run(
                hook.get("args") or [hook["path"]], executable=hook["path"], env=environment, timeout=timeout,
                input=json.dumps(state).encode(), capture_output=True, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise InvalidState(f"the hook {hook['path']} has not ended within {timeout:g} s") from None
        except OSError as error:
            raise InvalidState(f"the hook {hook['path']}: {error.strerror or error}") from None
        if done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()
            raise InvalidState(f"the hook {hook['path']} failed with status {done.returncode}: {said}")
