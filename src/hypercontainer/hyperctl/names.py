# SPDX-License-Identifier: Apache-2.0
"""Names that a shell completes: what the daemon has of the kind that an argument takes, contexts, and platforms."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from ..model.architectures import PLATFORMS

_ROUTES = {
    "container": "/containers?all=1",
    "pod": "/pods",
    "volume": "/volumes",
    "network": "/networks",
    "image": "/images",
    "token": "/tokens",
    "snapshot": "/snapshots",
    "organisation": "/organisations",
    "project": "/projects",
    "user": "/users",
    "cron": "/crons",
    "sg": "/security-groups",
    "fip": "/fips",
    "deployment": "/deployments",
    "volume_snapshot": "/volume-snapshots",
}
# Names of arguments -> the kinds that they take.
_KINDS = {
    "container": ("container",),
    "containers": ("container",),
    "pod": ("pod",),
    "pods": ("pod",),
    "volume": ("volume",),
    "network": ("network",),
    "image": ("image",),
    "images": ("image",),
    "source": ("image",),
    "tokens": ("token",),
    "snapshot": ("snapshot",),
    "snapshots": ("snapshot",),
    "member": ("user",),
    "volume_snapshots": ("volume_snapshot",),
}
# Of groups whose argument is a plain NAME.
_GROUPS = {"volume": "volume", "network": "network", "image": "image", "context": "context",
           "organisation": "organisation", "project": "project", "user": "user", "cron": "cron",
           "sg": "sg", "fip": "fip", "deployment": "deployment"}  # fmt: skip
_ANY = {
    "inspect": ("container", "pod", "volume", "image"),
    "start": ("container", "pod"),
    "stop": ("container", "pod"),
    "rmi": ("image",),
    "images": ("image",),
}


def _names_of(kind: str, item: dict[str, Any]) -> list[str]:
    if kind == "image":
        return [str(n) for n in item.get("names") or [str(item.get("id", "")).removeprefix("sha256:")[:12]]]
    inner = item.get(kind) if isinstance(item.get(kind), dict) else item  # VolumeInfo and NetworkInfo wrap theirs
    return [str(inner["name"])] if inner and "name" in inner else []


def known_names(kinds: tuple[str, ...], host: str = "", context: str = "") -> list[str]:
    """What there is; nothing when the daemon cannot be asked, or a cluster is meant. None is started for it."""
    from ..client.contexts import Contexts, enter
    from ..errors import HyperError

    try:
        if kinds == ("context",):
            return ["default", *Contexts().all]
        if enter(context, host) is not None:
            return []
    except HyperError:
        return []
    return list(dict.fromkeys(n for kind in kinds for n in _asked(kind, host)))


def _asked(kind: str, host: str) -> list[str]:
    from ..client.api import Client
    from ..client.base import default_socket
    from ..errors import HyperError

    route, _, query = _ROUTES[kind].partition("?")
    try:
        items = Client(host.removeprefix("unix://") or default_socket()).call(
            list[dict[str, Any]], "GET", route, {"all": True} if query else None
        )
    except (HyperError, OSError):
        return []
    return [n for item in items for n in _names_of(kind, item)]


def complete_names(command: click.Command, group: str = "") -> None:
    """Let the arguments of a command, and of those below it, complete; and its --platform."""
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            complete_names(inner, command.name or "")
        return
    for option in command.params:
        if isinstance(option, click.Option) and option.name == "platform":
            option._custom_shell_complete = _platforms
    for argument in command.params if command.name != "create" or group == "snapshot" else []:
        if not isinstance(argument, click.Argument) or argument._custom_shell_complete is not None:
            continue
        kinds = _ANY.get(command.name or "") if not group else None
        kinds = (
            kinds
            or _KINDS.get(argument.name or "")
            or ((_GROUPS[group],) if group in _GROUPS and argument.name in ("name", "names") else None)
        )
        if kinds:
            argument._custom_shell_complete = _completer(kinds)
        elif argument.name == "limits":
            argument._custom_shell_complete = _quotas


def complete_kind(kind: str) -> Any:
    """For an option that takes one of them."""
    return _completer((kind,))


def _platforms(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in PLATFORMS if name.startswith(incomplete)]


def _quotas(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from ..model.quotas import Quota

    return [CompletionItem(f"{name}=") for name in Quota.__struct_fields__ if name.startswith(incomplete)]


def complete_contexts(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Of `--context`."""
    return [CompletionItem(n) for n in known_names(("context",)) if n.startswith(incomplete)]


def _completer(kinds: tuple[str, ...]) -> Any:
    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        given = ctx.find_root().params
        found = known_names(kinds, given.get("host") or "", given.get("context") or "")
        return [CompletionItem(n) for n in found if n.startswith(incomplete)]

    return complete
