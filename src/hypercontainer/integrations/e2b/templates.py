# SPDX-License-Identifier: Apache-2.0
"""Templates that clients have built: images below `localhost/e2b`, each with a label of what an image does not say."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from ...errors import Conflict, InvalidArgument, NotFound
from ...model.filters import encode_filters
from ...model.images import Image
from ...sdk.api import Api
from .terms import is_snapshot

LABEL = "io.hypercontainer.e2b.template"
DEFAULT_TAG = "default"
_PLACE = "localhost/e2b/"  # where no registry's names are
_NAME = re.compile(r"(?=.{1,128}\Z)[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_RESERVED = ("base", "tags", "aliases")  # the server's own image; words of addresses


class Template(msgspec.Struct, frozen=True, rename="camel"):
    """What a template is beside its image."""

    build: str  # a UUID
    cpus: int = 0  # 0: hyperd's default; so for `memory`
    memory: int = 0  # MiB
    start: str = ""  # commands, of the shell
    ready: str = ""
    env: dict[str, str] = {}  # of these two


class Found(NamedTuple):
    """One that there is."""

    image: str  # the image's name
    id: str
    created: str  # RFC 3339
    template: Template


def split_name(text: Any) -> tuple[str, str]:
    """NAME[:TAG] as a name and a tag, "" for none. :raise InvalidArgument: it is something else."""
    name, colon, tag = text.partition(":") if isinstance(text, str) else ("", "", "")
    wrong = name in _RESERVED or is_snapshot(name) or (colon and not _TAG.fullmatch(tag))
    if wrong or not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"{text!r} is no template's name", hint="it has small letters, digits, `-`, `_` and `.`, and may have a tag"
        )
    return name, tag


def read_tags(given: Any) -> list[str]:
    """:raise InvalidArgument: one is none."""
    if not isinstance(given, list) or not all(isinstance(t, str) and _TAG.fullmatch(t) for t in given):
        raise InvalidArgument("tags are a list of words of letters, digits, `-`, `_` and `.`")
    return list(dict.fromkeys(given))


class Templates:
    """Of a hyperd: what its images say is the truth."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def find(self, text: str) -> Found | None:
        """By NAME[:TAG]; None where there is none of that name.

        :raise NotFound: there is one, without this tag, and no image has the name: a registry's is not meant.
        """
        try:
            name, tag = split_name(text)
        except InvalidArgument:
            return None
        image = f"{_PLACE}{name}:{tag or DEFAULT_TAG}"
        with contextlib.suppress(NotFound):
            return _found(await self._image(image), image)
        with contextlib.suppress(NotFound):
            await self._image(text)
            return None
        try:
            known = await self.tagged(name)
        except NotFound:
            return None
        hint = f"it has {', '.join(sorted(known))}"
        raise NotFound(f"template {name!r} has no tag {tag or DEFAULT_TAG!r}", hint=hint)

    async def tagged(self, name: str) -> dict[str, Found]:
        """All of one name, by their tags. :raise NotFound: there is none."""
        place = f"{_PLACE}{split_name(name)[0]}:"
        query = {"filters": encode_filters({"label": [LABEL]})}
        images = await self._api.call(list[Image], "GET", "/images", query)
        known = {n.removeprefix(place): _found(i, n) for i in images for n in i.names if n.startswith(place)}
        made = {tag: found for tag, found in known.items() if found}
        if not made:
            raise NotFound(f"there is no template {name!r}")
        return made

    async def put(self, image: str, name: str, tags: Sequence[str]) -> None:
        """Give an image these names; images that had them before, and no other, are removed where nothing uses them."""
        before = set()
        for tag in tags:
            new = f"{_PLACE}{name}:{tag}"
            with contextlib.suppress(NotFound):
                before.add((await self._image(new)).id)
            await self._api.do("POST", "/images/tag", {"name": image, "new": new})
        for id_ in before - {image}:
            await self.discard(id_)

    async def discard(self, image: str) -> None:
        """An image by its id; one that has a name, as another build's may be the same, or that is in use stays."""
        with contextlib.suppress(NotFound, Conflict):
            if not (await self._image(image)).names:
                await self._api.do("DELETE", "/images", {"name": image})

    async def untag(self, name: str, tags: Sequence[str] | None = None) -> None:
        """Take these tags away, or all; with its last one a template goes.

        :raise NotFound: there is no such. :raise Conflict: a sandbox has it.
        """
        known = await self.tagged(name)
        tags = [*known] if tags is None else tags
        if missing := [tag for tag in tags if tag not in known]:
            raise NotFound(f"template {name!r} has no tag {missing[0]!r}")
        for tag in tags:
            await self._api.do("DELETE", "/images", {"name": known[tag].image})

    async def _image(self, name: str) -> Image:
        return await self._api.call(Image, "GET", "/images/inspect", {"name": name})


def _found(image: Image, name: str) -> Found | None:
    try:
        template = msgspec.json.decode((image.config.get("Labels") or {}).get(LABEL, ""), type=Template)
    except msgspec.MsgspecError:
        return None  # somebody's own image
    return Found(name, image.id, image.created, template)
