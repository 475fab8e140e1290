# SPDX-License-Identifier: Apache-2.0
"""What happens, in Docker's words."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
from aiohttp import web

from ..errors import InvalidArgument
from ..model.filters import Filters, has_labels
from ..model.moments import SECOND
from ..model.reference import parse_reference
from ..model.status import Event
from .logs import moment
from .router import Call, Routes

routes = Routes()
# What Docker's clients know. Pods are containers to them, or nothing.
_TYPES = ("container", "image", "network", "volume", "daemon", "builder")
_OTHER_TYPES = ("plugin", "service", "node", "secret", "config")  # that nothing here happens to
_FILTERS = (*_TYPES, *_OTHER_TYPES, "event", "label", "type", "scope")
_WITH_MORE = ("health_status", "exec_create", "exec_start")  # actions with more behind a colon
_NAMES = {"exit_code": "exitCode", "exec_id": "execID", "old_name": "oldName", "exec_duration": "execDuration",
          "writable": "read/write"}  # fmt: skip
_BY_ID = ("untag", "delete", "save", "load", "import")  # of images: what else is told has its name, too


def translated(event: Event) -> dict[str, Any] | None:
    """None of what Docker has no word for."""
    if event.type not in _TYPES:
        return None
    attributes = {_NAMES.get(key, key): value for key, value in event.attributes.items()}
    if event.type == "network":
        attributes.setdefault("type", "bridge")
    if event.type == "volume" and "driver" in attributes:
        attributes["driver"] = "local"
    action, id_ = event.action, event.id
    if "oldName" in attributes:
        attributes["oldName"] = f"/{attributes['oldName']}"
    if reference := attributes.get("imageRef"):
        attributes["imageRef"] = _familiar(reference)
    if event.type == "image":
        id_ = _of_an_image(action, id_, attributes)
    if action in _WITH_MORE:
        action = f"{action}: {attributes.pop('command', '')}"
    found: dict[str, Any] = {}
    if event.type in ("container", "image"):  # as before version 1.22, which some clients still read
        found = {"status": action, "id": id_}
    if event.type == "container":
        found["from"] = attributes.get("image", "")
    return found | {
        "Type": event.type,
        "Action": action,
        "Actor": {"ID": id_, "Attributes": {**event.labels, **attributes}},
        "scope": "local",
        "time": event.time_nano // SECOND,
        "timeNano": event.time_nano,
    }


def _of_an_image(action: str, id_: str, attributes: dict[str, str]) -> str:
    """What stands for its id: a name for what comes from a registry, or goes there."""
    name = _familiar(attributes.get("name", ""))
    if action in _BY_ID:
        attributes["name"] = id_
    elif action in ("pull", "push"):
        attributes["name"] = _without_tag(name)
        return name
    elif name:
        attributes["name"] = name
    return id_


def _familiar(name: str) -> str:
    with contextlib.suppress(InvalidArgument):
        return parse_reference(name).familiar
    return name


def wanted(told: dict[str, Any], filters: Filters) -> bool:
    """Whether filters let it through: of each, one value has to fit."""
    actor = told["Actor"]
    name = actor["Attributes"].get("name", "")
    return (
        _fits(filters, "type", told["Type"])
        and _fits(filters, "scope", told["scope"])
        and _of_action(filters.get("event", []), told["Action"])
        and all(_begins(filters, kind, actor["ID"], name) for kind in (*_TYPES, *_OTHER_TYPES) if kind != "image")
        and _of_image(filters, told)
        and has_labels(actor["Attributes"], filters)
    )


def _fits(filters: Filters, key: str, value: str) -> bool:
    return key not in filters or value in filters[key]


def _begins(filters: Filters, key: str, *values: str) -> bool:
    """By the beginning of an id or a name, as Docker."""
    return key not in filters or any(v.startswith(begin) for v in values for begin in filters[key])


def _of_action(actions: list[str], action: str) -> bool:
    if any(more in actions for more in _WITH_MORE):
        return any(action.startswith(begin) for begin in actions)
    return not actions or action in actions


def _of_image(filters: Filters, told: dict[str, Any]) -> bool:
    """By the image's id or name, with its tag or without, of what happens to it and to its containers."""
    actor = told["Actor"]
    name = actor["Attributes"].get("name" if told["Type"] == "image" else "image", "")
    return "image" not in filters or any(
        value in (actor["ID"], name, _without_tag(actor["ID"]), _without_tag(name)) for value in filters["image"]
    )


def _without_tag(name: str) -> str:
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name


@routes.get("/events")
async def events(c: Call) -> web.StreamResponse:
    """As it happens; with `since` also what has happened, with `until` up to then."""
    filters = c.filters(_FILTERS)
    since, until = moment(c, "since"), moment(c, "until")
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    if until is not None and since is None:
        since = until  # nothing of the past
    found = c.engine.events.follow(since, until)
    async with contextlib.aclosing(found):
        following = aiter(found)
        await response.prepare(c.request)
        with contextlib.suppress(ConnectionError):
            async for event in following:
                if (told := translated(event)) and wanted(told, filters):
                    await response.write(msgspec.json.encode(told) + b"\n")
            await response.write_eof()
    return response
