# SPDX-License-Identifier: Apache-2.0
"""Images: what there is of them, their names, and how they go."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from ..errors import InvalidArgument, NotFound, Unsupported
from ..model.filters import with_unwanted
from ..model.images import RemovedImage
from ..model.reference import parse_reference
from . import missing
from .image_view import Details, Step, Summary, details, step, summary
from .router import Call, Routes

routes = Routes()
_FILTERS = ("reference", "dangling", "before", "since", "until", "label", "label!")
_PRUNE = ("dangling", "until", "label", "label!")


class Removed(msgspec.Struct, kw_only=True, omit_defaults=True, rename="pascal"):
    """A name, or an image, that is gone."""

    untagged: str = ""
    deleted: str = ""


class Pruned(msgspec.Struct, kw_only=True, rename="pascal"):
    """What a prune did."""

    images_deleted: list[Removed] | None
    space_reclaimed: int


@routes.get("/images/json")
async def list_(c: Call) -> list[Summary]:
    """Images, newest first; `all` is without a meaning, as there are no images in between."""
    filters = c.filters(_FILTERS)
    if old := c.text("filter"):  # what it was until 1.41
        filters.setdefault("reference", []).append(old)
    await c.engine.builds.catch_up()
    for name in (*filters.get("before", []), *filters.get("since", [])):
        try:
            c.engine.images.find(name)
        except NotFound as error:
            raise missing.image(name) from error
    images = c.engine.listing.images(with_unwanted(filters))
    shared = c.engine.usage.shared() if c.flag("shared-size") else {}
    return [summary(image, c.version, shared=shared.get(image.id, 0) if shared else -1) for image in images]


@routes.get("/images/search")
async def search(c: Call) -> list[Any]:
    """:raise Unsupported: always."""
    raise Unsupported(
        "HyperContainer cannot search Docker Hub: what registries speak has no search (docker manifest inspect NAME "
        "says whether there is an image)"
    )


@routes.get("/images/{name:.+}/json")
async def inspect(c: Call) -> Details:
    """All about one."""
    await c.engine.builds.catch_up()
    return details(c.engine.images.describe(c.name), c.version)


@routes.get("/images/{name:.+}/history")
async def history(c: Call) -> list[Step]:
    """How it was made, the last step first."""
    return [step(each) for each in c.engine.images.history(c.name)]


@routes.post("/images/{name:.+}/tag")
async def tag(c: Call) -> web.Response:
    """A further name."""
    repository, tagged = c.text("repo"), c.text("tag")
    if not repository:
        raise InvalidArgument("repo is missing: nothing says which name")
    name = c.engine.images.tag(c.name, f"{repository}:{tagged}" if tagged else repository)
    c.engine.image_events.tell("tag", c.engine.images.find(name), parse_reference(name).familiar)
    return web.Response(status=201)


@routes.post("/images/prune")
async def prune(c: Call) -> Pruned:
    """Those without a name; with `dangling=false` all that no container uses."""
    removed = await c.engine.images.prune(everything=False, filters=with_unwanted(c.filters(_PRUNE)))
    c.engine.image_events.pruned(removed)
    return Pruned(images_deleted=_lines(removed) or None, space_reclaimed=removed.freed)


@routes.delete("/images/{name:.+}")
async def remove(c: Call) -> list[Removed]:
    """A name, and with the last one the image."""
    removed = await c.engine.images.remove(c.name, force=c.flag("force"))
    c.engine.image_events.removed(removed)
    return _lines(removed)


def _lines(removed: RemovedImage) -> list[Removed]:
    return [*(Removed(untagged=x) for x in removed.untagged), *(Removed(deleted=x) for x in removed.deleted)]
