# SPDX-License-Identifier: Apache-2.0
"""App Container images where a container's or a pod's image is asked for: `aci:PATH`."""

from __future__ import annotations

import sys

import msgspec

from ..client.api import Client
from ..errors import InvalidArgument, NotFound
from ..model.appc import ID_LABEL
from ..model.filters import encode_filters
from ..model.images import Image, LoadedImage
from ..model.specs import ContainerSpec
from .bundles import load_file

PREFIX = "aci:"


def load_image(c: Client, text: str, *, quiet: bool) -> LoadedImage:
    """The image of `aci:PATH`, taken from there anew; what of it is ignored is told.

    :raise InvalidArgument: there is an archive of another kind.
    """
    path = text.removeprefix(PREFIX)
    loaded = load_file(c, path, quiet=quiet)
    if len(loaded) != 1 or loaded[0].app is None:
        raise InvalidArgument(f"{path} is no App Container image", hint="take it with `hyperctl load`")
    for what in loaded[0].app.ignored:
        print(f"hyperctl: {path}: {what} has no counterpart here and is ignored", file=sys.stderr)
    return loaded[0]


def with_app(c: Client, spec: ContainerSpec, *, quiet: bool) -> ContainerSpec:
    """The specification with the image's name, and with what its app asks for where nothing else is asked for."""
    image = load_image(c, spec.image, quiet=quiet)
    app = image.app
    assert app is not None
    own = spec.resources
    resources = msgspec.structs.replace(own, memory=own.memory or app.memory, cpus=own.cpus or app.cpus)
    rights = (
        {} if spec.privileged or spec.cap_add or spec.cap_drop else {"cap_add": app.cap_add, "cap_drop": app.cap_drop}
    )
    return msgspec.structs.replace(
        spec, image=name_of(image), pull="never", resources=resources, groups=[*app.groups, *spec.groups],
        no_new_privileges=spec.no_new_privileges or app.no_new_privileges, **rights,
    )  # fmt: skip


def of_id(c: Client, id_: str) -> str:
    """The name of the image that was an ACI of this id, or of one that begins so; its own id when it has none.

    :raise NotFound: there is none.
    """
    for image in c.call(list[Image], "GET", "/images", {"filters": encode_filters({"label": [ID_LABEL]})}):
        if str(image.config["Labels"][ID_LABEL]).startswith(id_):
            return next(iter(image.names), image.id)
    raise NotFound(f"no App Container image {id_[:19]}", hint="take it with `hyperctl load FILE`")


def name_of(image: LoadedImage) -> str:
    return next(iter(image.names), image.id)
