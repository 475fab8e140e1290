# SPDX-License-Identifier: Apache-2.0
"""Images over REST."""

from __future__ import annotations

import msgspec
from aiohttp import web

from ..engine.host_access import check_registry
from ..errors import InvalidArgument
from ..images.describe import FILTERS
from ..images.load import Loaded
from ..images.manifests import StoredImage
from ..images.progress import Progress
from ..images.push import Pushed
from ..images.save import KINDS
from ..model.base import Model
from ..model.filters import decode_filters
from ..model.images import HistoryEntry, Image, LoadedImage, RemovedImage
from ..model.reference import parse_reference, parse_source
from ..serving.streaming import send_tar
from ..sys.documents import UNREADABLE
from .progress import send_progress
from .router import Context, Routes

routes = Routes()
_PRUNE = ("dangling", "until", "label")


class Tagged(Model, frozen=True, kw_only=True):
    """The full new name."""

    name: str


@routes.post(
    "/images/pull",
    query={"name": "reference, or transport:location", "platform": "os/architecture[/variant]"},
    stream="application/x-ndjson",
)
async def pull(c: Context) -> web.StreamResponse:
    """Pull an image; the answer tells its progress line by line."""
    source = parse_source(c.text("name"))
    if source.transport == "docker":
        await check_registry(parse_reference(source.location).host)
    progress, image = c.engine.pull(
        c.text("name"), platform=c.text("platform"), auth=c.request.headers.get("X-Registry-Auth", "")
    )

    def last(pulled: StoredImage) -> object:
        return {"image": pulled.id, "digest": pulled.digest, "name": progress.name}

    return await send_progress(c, progress, image, last)


@routes.get("/images/tags", query={"name": "repository, without a tag"}, scope="operate")
async def tags(c: Context) -> list[str]:
    """What a registry has of a repository."""
    await check_registry(parse_reference(c.text("name")).host)
    return await c.engine.images.registries.tags(c.text("name"), auth=c.request.headers.get("X-Registry-Auth", ""))


@routes.post("/images/push", query={"name": "name with a tag, which says the registry"}, stream="application/x-ndjson")
async def push(c: Context) -> web.StreamResponse:
    """Push an image to a registry; the answer tells its progress line by line."""
    progress, name = Progress(), c.text("name")
    image = c.engine.images.find(name)
    await check_registry(parse_reference(name).host)

    async def work() -> Pushed:
        try:
            auth = c.request.headers.get("X-Registry-Auth", "")
            return await c.engine.images.push(name, progress, auth=auth)
        finally:
            progress.finish()

    def last(pushed: Pushed) -> object:
        c.engine.image_events.tell("push", image, name)
        return {"digest": pushed.digest, "size": pushed.size}

    return await send_progress(c, progress, work(), last)


@routes.get(
    "/images/save",
    query={
        "names": "JSON list of names or ids",
        "format": f"one of {', '.join(KINDS)} [{KINDS[0]}]",
        "platform": "os/architecture[/variant]: only what is for that",
    },
    stream="application/x-tar",
    scope="operate",
)
async def save(c: Context) -> web.StreamResponse:
    """Images as an archive, which load takes."""
    names = _strings(c, "names")
    if not names:
        raise InvalidArgument("no image is named", hint="give names as a JSON list")
    chunks = c.engine.images.save(names, c.text("format") or KINDS[0], platform=c.text("platform"))
    c.engine.image_events.saved(names, c.engine.images)
    return await send_tar(c.request, chunks)


@routes.post(
    "/images/load",
    query={"platform": "os/architecture[/variant]: names stand for images of that"},
    stream="application/x-ndjson",
)
async def load(c: Context) -> web.StreamResponse:
    """Take images from an archive, the body; the answer tells its progress line by line."""
    progress = Progress()

    async def work() -> list[Loaded]:
        try:
            return await c.engine.images.loader.load(
                c.request.content.iter_any(), progress, platform=c.text("platform")
            )
        finally:
            progress.finish()

    def last(loaded: list[Loaded]) -> object:
        c.engine.image_events.loaded(loaded)
        return {
            "loaded": [
                LoadedImage(id=x.image.id, names=_shown(x.names), replaced=x.replaced, app=x.app) for x in loaded
            ]
        }

    return await send_progress(c, progress, work(), last)


@routes.post(
    "/images/import",
    query={
        "reference": "the image's name",
        "message": "comment of its step",
        "changes": "JSON list of a Dockerfile's instructions",
        "platform": "os/architecture[/variant]",
        "source": "what the archive is called in its history",
    },
    status=201,
)
async def import_(c: Context) -> LoadedImage:
    """Make an image of an archive of files, the body."""
    loaded = await c.engine.images.loader.import_(
        c.request.content.iter_any(), reference=c.text("reference"), message=c.text("message"),
        changes=_strings(c, "changes"), platform=c.text("platform"), source=c.text("source", "-"),
    )  # fmt: skip
    c.engine.image_events.tell("import", loaded.image, c.text("reference"))
    return LoadedImage(id=loaded.image.id, names=_shown(loaded.names), replaced=loaded.replaced)


def _strings(c: Context, name: str) -> list[str]:
    """:raise InvalidArgument: a query parameter is no JSON list of texts."""
    try:
        return msgspec.json.decode(c.text(name) or "[]", type=list[str])
    except UNREADABLE as error:
        raise InvalidArgument(
            f"query parameter {name} is no JSON list of texts", hint="see the API's document"
        ) from error


def _shown(names: list[str]) -> list[str]:
    return [parse_reference(name).familiar for name in names]


@routes.get("/images", query={"filters": f"JSON object of lists, as Docker's: {', '.join(FILTERS)}"})
async def list_(c: Context) -> list[Image]:
    """List images, newest first."""
    await c.engine.builds.catch_up()
    return c.engine.listing.images(decode_filters(c.text("filters"), FILTERS))


@routes.get("/images/inspect", query={"name": "name or id"})
async def inspect(c: Context) -> Image:
    """Inspect an image."""
    await c.engine.builds.catch_up()
    return c.engine.images.describe(c.text("name"))


@routes.get("/images/history", query={"name": "name or id"})
async def history(c: Context) -> list[HistoryEntry]:
    """How an image was made, the last step first."""
    return c.engine.images.history(c.text("name"))


@routes.post("/images/tag", query={"name": "name or id", "new": "the further name"}, status=201)
async def tag(c: Context) -> Tagged:
    """Give an image a further name."""
    name = c.engine.images.tag(c.text("name"), c.text("new"))
    c.engine.image_events.tell("tag", c.engine.images.find(name), name)
    return Tagged(name=parse_reference(name).familiar)


@routes.delete("/images", query={"name": "name or id", "force": "remove all names"})
async def remove(c: Context) -> RemovedImage:
    """Remove a name, and with the last one the image."""
    removed = await c.engine.images.remove(c.text("name"), force=c.flag("force"))
    c.engine.image_events.removed(removed)
    return removed


@routes.post(
    "/images/prune",
    query={
        "all": "also those with a name that no container uses",
        "filters": f"JSON object of lists: {', '.join(_PRUNE)}",
    },
)
async def prune(c: Context) -> RemovedImage:
    """Remove images without a name."""
    filters = decode_filters(c.text("filters"), _PRUNE)
    removed = await c.engine.images.prune(everything=c.flag("all"), filters=filters)
    c.engine.image_events.pruned(removed)
    return removed
