# SPDX-License-Identifier: Apache-2.0
"""Contexts: by name, which hyperd or which cluster of Kubernetes a command is for, as Docker's have it.

They are in one JSON file of the user's, which nothing reads unless it is there. A hyperd's context stands for the
variables of the environment that would name it (`tls.py`). Imports little, for the quick way of hyperctl.
"""

from __future__ import annotations

import contextlib
import os

from ..errors import Conflict, InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT = "default"  # no context: the host's own hyperd, or what the environment says
_VARIABLES = {
    "host": "HYPER_HOST", "tlscacert": "HYPER_TLSCACERT", "tlscert": "HYPER_TLSCERT", "tlskey": "HYPER_TLSKEY",
    "tokenFile": "HYPER_TOKEN_FILE",
}  # fmt: skip


def path() -> str:
    """The file."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(base, "hyper", "contexts.json")


class Contexts:
    """What the file says."""

    def __init__(self) -> None:
        """:raise InvalidArgument: it is damaged."""
        self.current = DEFAULT
        self.all: dict[str, dict[str, Any]] = {}
        if os.path.exists(path()):
            self._read()

    def _read(self) -> None:
        import json

        try:
            with open(path()) as file:
                found = json.load(file)
            self.current, self.all = str(found["current"]), dict(found["contexts"].items())
            for name, each in self.all.items():
                _check(name, each)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidArgument(
                f"the contexts in {path()} cannot be read: {error}", hint="correct the file, or remove it"
            ) from None

    def write(self) -> None:
        """All of it or nothing."""
        import json

        os.makedirs(os.path.dirname(path()), mode=0o700, exist_ok=True)
        new = f"{path()}.{os.getpid()}"
        try:
            with open(new, "w") as file:
                json.dump({"current": self.current, "contexts": self.all}, file, indent=2)
            os.replace(new, path())
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise

    def get(self, name: str) -> dict[str, Any]:
        """:raise NotFound: there is none."""
        if name == DEFAULT:
            return {}
        if name not in self.all:
            raise NotFound(f"there is no context {name!r}", hint="see `hyperctl context ls`")
        found: dict[str, Any] = self.all[name]
        return found

    @property
    def chosen(self) -> str:
        """By the environment, else the one in use."""
        if name := os.environ.get("HYPER_CONTEXT"):
            return name
        return DEFAULT if os.environ.get("HYPER_HOST") else self.current


def _check(name: str, document: Any) -> None:
    """:raise ValueError: it is no context."""
    cluster = document.get("kubernetes", {})
    if not all(isinstance(value, str) for value in [*({**document, "kubernetes": ""}).values(), *cluster.values()]):
        raise ValueError(f"the context {name!r} has something other than words")
    if not (document.get("host") or "kubernetes" in document):
        raise ValueError(f"the context {name!r} does not say where to go")


def enter(name: str, host: str) -> dict[str, Any] | None:
    """Let this process speak with what a context names; the cluster of Kubernetes, if it is one.

    `name` and `host` are what the command line says, "" where it does not.

    :raise Conflict: it says both. :raise NotFound: there is no such context.
    """
    if name and host:
        raise Conflict("--host and --context both say where to go", hint="leave one of them out")
    if host or not (name or os.environ.get("HYPER_CONTEXT") or os.path.exists(path())):
        return None
    contexts = Contexts()
    found = contexts.get(name or contexts.chosen)
    if "kubernetes" in found:
        cluster: dict[str, Any] = found["kubernetes"]
        return cluster
    if found:
        for variable in (*_VARIABLES.values(), "HYPER_TOKEN", "HYPER_CERT_PATH"):
            os.environ.pop(variable, None)
        os.environ.update({_VARIABLES[key]: value for key, value in found.items() if key in _VARIABLES})
        if project := found.get("project"):
            os.environ.setdefault("HYPER_PROJECT", project)  # who names one means another of that hyperd's
    return None
