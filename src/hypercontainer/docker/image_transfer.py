# SPDX-License-Identifier: Apache-2.0
"""Images on their way: from and to registries, from and to archives."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgspec
from aiohttp import web

from ..engine.host_access import check_registry
from ..errors import HyperError, InvalidArgument, NotFound
from ..images.load import Loaded
from ..images.manifests import StoredImage
from ..images.progress import Progress, Update
from ..images.push import Pushed
from ..model.reference import Reference, parse_reference
from ..serving.streaming import send_tar
from ..sys.documents import UNREADABLE
from .credentials import for_engine
from .progress import Line, Lines, body_of, follow, layer_line, pull_lines
from .router import Call, Routes

routes = Routes()
_KIND = "docker-archive"  # OCI's layout, with Docker's manifest.json


class Platform(msgspec.Struct, kw_only=True):
    """OCI's."""

    os: str = ""
    architecture: str = ""
    variant: str = ""


@routes.post("/images/create")
async def create(c: Call) -> web.StreamResponse:
    """Pull an image, or with `fromSrc` make one of an archive."""
    if c.text("fromSrc"):
        return await _import(c)
    if not c.text("fromImage"):
        raise InvalidArgument("fromImage or fromSrc is missing: nothing says which image")
    lines = Lines(c)
    auth = for_engine(c.request.headers.get("X-Registry-Auth", ""))
    try:
        for wanted in await _wanted(c, auth):
            await _pull(c, lines, wanted, auth)
    except HyperError as error:
        await lines.fail(error)
    return await lines.end()


async def _wanted(c: Call, auth: str) -> list[Reference]:
    """What is named; a name without a tag is all tags that the registry has, as with Docker.

    :raise InvalidArgument: it is no name. :raise NotFound: the registry has no such repository.
    """
    text, tag = c.text("fromImage"), c.text("tag")
    if tag:
        text += f"@{tag}" if ":" in tag else f":{tag}"
    reference = parse_reference(text)
    await check_registry(reference.host)
    if tag or reference.digest or ":" in text.rpartition("/")[2]:
        return [reference]
    tags = await c.engine.images.registries.tags(text, auth=auth)
    return [reference._replace(tag=each) for each in tags]


async def _pull(c: Call, lines: Lines, wanted: Reference, auth: str) -> StoredImage:
    progress, image = c.engine.pull(wanted.full, platform=c.text("platform"), auth=auth)
    repository = wanted.path if wanted.host == "docker.io" else wanted.repository.partition("/")[2]
    return await follow(lines, progress, image, pull_lines(repository, wanted.tag or wanted.digest))


async def _import(c: Call) -> web.StreamResponse:
    """:raise InvalidArgument: it is no archive, or not sent with the request."""
    source, repository, tag = c.text("fromSrc"), c.text("repo"), c.text("tag")
    if source != "-":
        raise InvalidArgument(f"fromSrc {source!r}: send the archive itself, as the body, with fromSrc=-")
    reference = f"{repository}:{tag}" if repository and tag else repository
    loaded = await c.engine.images.loader.import_(
        body_of(c), reference=reference, message=c.text("message"), changes=c.request.query.getall("changes", []),
        platform=c.text("platform"), source=source,
    )  # fmt: skip
    c.engine.image_events.tell("import", loaded.image, reference)
    lines = Lines(c)
    with contextlib.suppress(ConnectionError):
        await lines.send([{"status": loaded.image.id}])
    return await lines.end()


@routes.post("/images/{name:.+}/push")
async def push(c: Call) -> web.StreamResponse:
    """Send an image to the registry that its name says; without a tag all that the repository has here."""
    auth = for_engine(c.request.headers.get("X-Registry-Auth", ""))
    lines = Lines(c)
    try:
        for name in _tagged(c):
            await _push(c, lines, name, auth)
    except HyperError as error:
        await lines.fail(error)
    return await lines.end()


def _tagged(c: Call) -> list[Reference]:
    """:raise NotFound: no image has such a name."""
    if tag := c.text("tag"):
        return [parse_reference(f"{c.name}:{tag}")]
    reference = parse_reference(c.name)
    if reference.digest or ":" in c.name.rpartition("/")[2]:
        return [reference]
    every = [parse_reference(n) for i in c.engine.images.describe_all() for n in i.names]
    found = sorted(r for r in every if r.repository == reference.repository and r.tag)
    if not found:
        bare = reference._replace(tag="").familiar
        raise NotFound(f"An image does not exist locally with the tag: {bare}")
    return found


async def _found(c: Call, lines: Lines, name: Reference) -> StoredImage:
    """:raise NotFound: in Docker's words, after the line with which it begins."""
    try:
        return c.engine.images.find(name.full)
    except NotFound as error:
        await lines.send([{"status": f"The push refers to repository [{name.repository}]"}])
        bare = name._replace(tag="").familiar
        raise NotFound(f"An image does not exist locally with the tag: {bare}") from error


async def _push(c: Call, lines: Lines, name: Reference, auth: str) -> None:
    progress, image = Progress(), await _found(c, lines, name)
    await check_registry(name.host)

    async def work() -> Pushed:
        try:
            return await c.engine.images.push(name.full, progress, auth=auth)
        finally:
            progress.finish()

    def spell(update: Update) -> Iterator[Line]:
        if update["id"]:
            yield layer_line(update["id"], update["status"], update["current"], update["total"])
        else:
            yield {"status": update["status"]}

    pushed = await follow(lines, progress, work(), spell)
    c.engine.image_events.tell("push", image, name.familiar)
    said = {"Tag": name.tag, "Digest": pushed.digest, "Size": pushed.size}
    await lines.send([{"progressDetail": {}, "aux": said}])


@routes.get("/images/get", scope="operate")
async def get_several(c: Call) -> web.StreamResponse:
    """Images as an archive."""
    return await _save(c, [n for each in c.request.query.getall("names", []) for n in each.split(",") if n])


@routes.get("/images/{name:.+}/get", scope="operate")
async def get(c: Call) -> web.StreamResponse:
    """One."""
    return await _save(c, [c.name])


async def _save(c: Call, names: list[str]) -> web.StreamResponse:
    """:raise InvalidArgument: none is named. :raise NotFound: in Docker's words."""
    if not names:
        raise InvalidArgument("no image is named: give names=")
    platform = _platform(c)
    for name in names:
        try:
            c.engine.images.save([name], _KIND)
        except NotFound as error:
            raise NotFound(f"No such image: {name}") from error
    chunks = c.engine.images.save(names, _KIND, platform=platform)
    c.engine.image_events.saved(names, c.engine.images)
    return await send_tar(c.request, chunks)


def _platform(c: Call) -> str:
    """What `platform` says, which is a document.

    :raise InvalidArgument: it is none.
    """
    if not (text := c.text("platform")):
        return ""
    try:
        found = msgspec.json.decode(text, type=Platform)
    except UNREADABLE as error:
        raise InvalidArgument(f"invalid platform: {error}") from error
    return "/".join(filter(None, (found.os, found.architecture, found.variant)))


@routes.post("/images/load")
async def load(c: Call) -> web.StreamResponse:
    """Take images from an archive, the body."""
    progress, lines = Progress(), Lines(c)

    async def work() -> list[Loaded]:
        try:
            return await c.engine.images.loader.load(body_of(c), progress)
        finally:
            progress.finish()

    def spell(update: Update) -> Iterator[Line]:
        if update["id"] and not c.flag("quiet", default=True):
            status = "Loading layer" if update["current"] < update["total"] else "Loaded layer"
            yield layer_line(update["id"], status, update["current"], update["total"])

    try:
        loaded = await follow(lines, progress, work(), spell)
    except HyperError as error:
        await lines.fail(error)
        return await lines.end()
    c.engine.image_events.loaded(loaded)
    for each in loaded:
        await lines.send(_loaded(each))
    return await lines.end()


def _loaded(each: Loaded) -> Iterator[Line]:
    for name, id_ in each.replaced.items():
        shown = parse_reference(name).familiar
        old = f"The image {shown} already exists, renaming the old one with ID {id_} to empty string\n"
        yield {"stream": old}
    for name in each.names:
        yield {"stream": f"Loaded image: {parse_reference(name).familiar}\n"}
    if not each.names:
        yield {"stream": f"Loaded image ID: {each.image.id}\n"}
