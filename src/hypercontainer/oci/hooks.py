# SPDX-License-Identifier: Apache-2.0
"""A bundle's hooks: programs that hear of the container's state on their stdin.

Source: https://github.com/opencontainers/runtime-spec/blob/v1.0.2/config.md#posix-platform-hooks.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

from ..errors import InvalidArgument, InvalidState
from .arguments import SPEC_VERSION

Hook = dict[str, Any]
_TIMEOUT = 120.0  # seconds, where the hook says none
KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def check_hooks(hooks: dict[str, list[Hook]]) -> None:
    """:raise InvalidArgument: one is malformed."""
    for kind in KINDS:
        for hook in hooks.get(kind) or []:
            path, timeout = hook.get("path"), hook.get("timeout")
            if not isinstance(path, str) or not path.startswith("/"):
                raise InvalidArgument(f"the hook {kind} has no absolute path: {path!r}")
            if timeout is not None and (not isinstance(timeout, int) or timeout <= 0):
                raise InvalidArgument(f"the hook {path} has no time above 0: {timeout!r}")


def run_hooks(hooks: list[Hook], state: dict[str, Any], enter: Callable[[], None] | None = None) -> None:
    """In turn, on this host; `enter` is called by the processes that become them.

    :raise InvalidState: one failed, with its words; those after it are not run.
    """
    for hook in hooks:
        environment = dict(e.split("=", 1) for e in hook.get("env") or [] if "=" in e)
        timeout = hook.get("timeout") or _TIMEOUT
        try:
            done = subprocess.run(
                hook.get("args") or [hook["path"]], executable=hook["path"], env=environment, timeout=timeout,
                input=json.dumps(state).encode(), capture_output=True, check=False, preexec_fn=enter,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise InvalidState(f"the hook {hook['path']} has not ended within {timeout:g} s") from None
        except subprocess.SubprocessError:
            raise InvalidState(f"the hook {hook['path']} cannot enter the container's namespaces") from None
        except OSError as error:
            raise InvalidState(f"the hook {hook['path']}: {error.strerror or error}") from None
        if done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()
            raise InvalidState(f"the hook {hook['path']} failed with status {done.returncode}: {said}")


def run_each(hooks: list[Hook], state: dict[str, Any], warn: Callable[[str], None]) -> None:
    """All of them, also after one that failed, which is told: what they hear of has happened."""
    for hook in hooks:
        try:
            run_hooks([hook], state)
        except InvalidState as error:
            warn(str(error))


def of_guest(config: dict[str, Any], id_: str, bundle: str, *, own_pids: bool) -> list[dict[str, Any]]:
    """startContainer's, which are run in the container, as hyperd has them (StartHook of `model/specs.py`)."""
    state: dict[str, Any] = {"ociVersion": SPEC_VERSION, "id": id_, "status": "created", "bundle": bundle}
    state |= {"pid": 1} if own_pids else {}  # who runs them is about to be its program
    state["annotations"] = config.get("annotations") or {}
    return [
        {
            "path": hook["path"], "args": hook.get("args") or [], "env": hook.get("env") or [],
            "input": json.dumps(state), "timeout": hook.get("timeout") or _TIMEOUT,
        }
        for hook in (config.get("hooks") or {}).get("startContainer") or []
    ]  # fmt: skip


def longest(hooks: dict[str, list[Hook]]) -> float:
    """Seconds that startContainer's may take together."""
    return float(sum(hook.get("timeout") or _TIMEOUT for hook in hooks.get("startContainer") or []))
