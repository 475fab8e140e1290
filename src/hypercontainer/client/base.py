# SPDX-License-Identifier: Apache-2.0
"""What every client needs, with as little to import as can be."""

from __future__ import annotations

import os

from .. import API_VERSION, errors

TYPE_CHECKING = False  # the one of `typing`, which takes 5 ms to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any


def default_socket() -> str:
    """HYPER_HOST, root's socket, or the user's.

    :raise PermissionDenied: when another user made the directory in /tmp that the user's would be in.
    """
    if host := os.environ.get("HYPER_HOST"):
        return host.removeprefix("unix://")
    if os.geteuid() == 0:
        return "/run/hyper/hyper.sock"
    if base := os.environ.get("XDG_RUNTIME_DIR"):
        return f"{base}/hyper/hyper.sock"
    from ..sys.private import require_private

    require_private(directory := f"/tmp/hyper-{os.getuid()}")
    return f"{directory}/hyper.sock"


def raise_known(known: dict[str, Any]) -> None:
    """The error that an answer's JSON describes."""
    kind = errors.by_code(known.get("code", ""))
    message, hint = known.get("message", "unknown error"), known.get("hint") or None
    if kind is errors.StartFailed:
        raise errors.StartFailed(message, exit_status=known.get("exitStatus") or 126, hint=hint)
    if kind is errors.GuestError:
        raise errors.GuestError(message)
    raise kind(message, hint=hint)


def follow(
    lines: Iterable[dict[str, Any]], last: str, during: str, tell: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """The line with `last` in it, of an answer whose lines tell how far something is; `tell` hears of each.

    :raise HyperError: what the daemon says went wrong. :raise Unavailable: it ends without that; `during` is a word for
        people.
    """
    found: dict[str, Any] = {}
    for line in lines:
        if "error" in line:
            raise_known(line["error"])
        if last in line:
            found = line
        tell(line)
    if not found:
        raise errors.Unavailable(f"hyperd closed the connection during {during}", hint="see its log, and try again")
    return found


def raise_error(body: bytes, status: int) -> None:
    """The error that an answer of 4xx or 5xx stands for."""
    import json

    try:
        known = json.loads(body)
    except ValueError:
        known = None
    if not isinstance(known, dict):
        raise errors.Unavailable(f"hyperd answered with status {status}: {body[:200].decode(errors='replace')}")
    raise_known(known)


def target(route: str, query: dict[str, str]) -> str:
    """A route of the API with its query."""
    if not query:
        return f"/{API_VERSION}{route}"
    from urllib.parse import urlencode

    return f"/{API_VERSION}{route}?{urlencode(query)}"


def parameters(query: Mapping[str, str | int | bool | None] | None) -> dict[str, str]:
    """Of a query: what is not given, or false, is left out."""
    return {
        k: (str(int(v)) if isinstance(v, bool) else str(v))
        for k, v in (query or {}).items()
        if not (v is None or v is False or v == "")
    }


def container_route(key: str, suffix: str = "") -> str:
    """Of a container, by its name or id."""
    return f"/containers/{_quoted(key.removeprefix('/'))}{suffix}"


def pod_route(key: str, suffix: str = "") -> str:
    """Of a pod, by its name or id."""
    return f"/pods/{_quoted(key)}{suffix}"


def exec_route(id_: str, suffix: str = "") -> str:
    """Of a process that was executed in a container, by its id."""
    return f"/execs/{_quoted(id_)}{suffix}"


def volume_snapshot_route(key: str) -> str:
    """Of a snapshot of a volume, by its name or id."""
    return f"/volume-snapshots/{_quoted(key)}"


def snapshot_route(key: str, suffix: str = "") -> str:
    """Of a saved pod, by its name or id."""
    return f"/snapshots/{_quoted(key)}{suffix}"


def _quoted(key: str) -> str:
    from urllib.parse import quote

    return quote(key, safe="")
