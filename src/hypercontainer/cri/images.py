# SPDX-License-Identifier: Apache-2.0
"""ImageService."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
from typing import Any

from ..errors import InvalidArgument, InvalidState, NotFound
from ..model.images import Image
from ..model.registry_auth import registry_auth
from ..sys import clock, tasks
from . import api, views
from .call import Call


async def list_(c: Call) -> Any:
    """All of them, or the one that the filter names."""
    name = c.request.filter.image.image
    if not name:
        return api.ListImagesResponse(images=[_image(i) for i in c.engine.images.describe_all() if not i.damaged])
    try:
        return api.ListImagesResponse(images=[_image(c.engine.images.describe(name))])
    except NotFound:
        return api.ListImagesResponse()


async def status(c: Call) -> Any:
    """Without an image where there is none."""
    try:
        image = c.engine.images.describe(_name(c.request.image))
    except NotFound:
        return api.ImageStatusResponse()
    answer = api.ImageStatusResponse(image=_image(image))
    if c.request.verbose:
        answer.info["image"] = views.as_json(image)
    return answer


def _name(spec: Any) -> str:
    if not spec.image:
        raise InvalidArgument("the image's name is missing")
    return str(spec.image)


def _image(image: Image) -> Any:
    user = str(image.config.get("User") or "").partition(":")[0]
    numeric = user.isdecimal()
    return api.Image(
        id=image.id, repo_tags=[n for n in image.names if "@" not in n], repo_digests=image.repo_digests,
        size=max(image.size, 1), uid=api.Int64Value(value=int(user)) if numeric else None,
        username="" if numeric else user, spec=api.ImageSpec(image=image.id),
    )  # fmt: skip


async def pull(c: Call) -> Any:
    """Its id, when it is in the store and a machine could run it."""
    _, image = c.engine.pull(_name(c.request.image), auth=credentials(c.request.auth))
    return api.PullImageResponse(image_ref=(await image).id)


def credentials(auth: Any) -> str:
    """As the engine takes them; "" where there are none.

    :raise InvalidArgument: they are malformed. :raise Unsupported: they are a registry token.
    """
    user, password = auth.username, auth.password
    if auth.auth and not user:
        try:
            user, _, password = base64.b64decode(auth.auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise InvalidArgument(f"invalid credentials of a registry: {error}") from error
    return registry_auth(user, password, identity_token=auth.identity_token, registry_token=auth.registry_token)


async def remove(c: Call) -> Any:
    """The image with all of its names. What is gone has been removed.

    :raise InvalidState: a container uses it.
    """
    with contextlib.suppress(NotFound):
        id_ = c.engine.images.find(_name(c.request.image)).id
        if users := c.engine.registry.in_use().get(id_):
            raise InvalidState(f"the image is in use by container {', '.join(users)}", hint="remove that first")
        removed = await c.engine.images.remove(id_, force=True)
        c.engine.image_events.removed(removed)
    return api.RemoveImageResponse()


async def fs_info(c: Call) -> Any:
    """What images take of the disk that they are on."""
    images = c.engine.settings.paths.images
    parts = c.engine.images.footprint()
    sizes = {part: size for each in parts.values() for part, size in each.items()}
    inodes = await tasks.in_thread(lambda: sum(1 + len(files) for _, _, files in os.walk(images)))
    usage = api.FilesystemUsage(
        timestamp=clock.now_ns(), fs_id=api.FilesystemIdentifier(mountpoint=str(images)),
        used_bytes=api.UInt64Value(value=sum(sizes.values())), inodes_used=api.UInt64Value(value=inodes),
    )  # fmt: skip
    return api.ImageFsInfoResponse(image_filesystems=[usage], container_filesystems=[usage])


METHODS = {
    "ListImages": list_,
    "ImageStatus": status,
    "PullImage": pull,
    "RemoveImage": remove,
    "ImageFsInfo": fs_info,
}
