# SPDX-License-Identifier: Apache-2.0
"""Whose images are taken: policies as skopeo reads them (containers-policy.json(5))."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import PermissionDenied, Unavailable

_SYSTEM = Path("/etc/containers/policy.json")


class Trust(NamedTuple):
    """Whose images are taken: a policy, and where signatures lie (containers-registries.d(5)); "" is what this
    host has.
    """

    policy: str = ""
    signatures: str = ""

    def options(self) -> list[str]:
        """Of skopeo. Without a policy file it refuses everything; Docker's default accepts."""
        found = ["--registries.d", self.signatures] if self.signatures else []
        if self.policy:
            return ["--policy", self.policy, *found]
        return found if self._file() else ["--insecure-policy", *found]

    def _file(self) -> Path | None:
        user = Path.home() / ".config/containers/policy.json"
        return Path(self.policy) if self.policy else next((p for p in (user, _SYSTEM) if p.exists()), None)

    def takes_anything(self, transport: str, name: str = "") -> bool:
        """Whether no signature is asked of what comes this way, and it is not refused. `name` is a registry's
        `HOST/PATH:TAG`; "" for what has no name of its own.

        :raise Unavailable: the policy cannot be read.
        """
        path = self._file()
        if path is None:
            return True
        try:
            document = json.loads(path.read_bytes())
            scopes = document.get("transports", {}).get(transport, {})
            found = next((scopes[scope] for scope in _scopes(name) if scope in scopes), document["default"])
            return bool(found) and all(rule["type"] == "insecureAcceptAnything" for rule in found)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise Unavailable(
                f"the image policy {path} cannot be used: {error}", hint="correct the file (`image_policy`)"
            ) from error

    def require(self, transport: str, what: str) -> None:
        """For what carries no signatures.

        :raise PermissionDenied: the policy does not take everything that comes this way.
        """
        if not self.takes_anything(transport):
            raise PermissionDenied(
                f"cannot take {what}: the image policy refuses it: it accepts nothing unsigned by {transport}",
                hint="have it signed, or change the policy (`image_policy`)",
            )


def _scopes(name: str) -> Iterator[Any]:
    """The most specific first."""
    if name:
        yield name
        path = name.partition("@")[0]
        if ":" in path.rpartition("/")[2]:
            path = path.rpartition(":")[0]
        while path:
            yield path
            path = path.rpartition("/")[0]
        host = name.partition("/")[0]
        while "." in host:
            host = host.partition(".")[2]
            yield f"*.{host}"
    yield ""
