# SPDX-License-Identifier: Apache-2.0
"""The architecture of a pod's processors, which is that of its containers' images."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InvalidArgument
from ..images.manifests import StoredImage
from ..images.pull import parse_platform
from ..model import architectures
from ..model.status import Pod

_HINT = "put it into a pod of its own"


def check_platform(text: str) -> None:
    """:raise InvalidArgument: it is none, or no machine runs images for it."""
    if text:
        wanted = parse_platform(text)
        architectures.machine_for(wanted.os, wanted.architecture, wanted.variant)


def of_image(image: StoredImage | None) -> str:
    """Of a machine that runs it, by OCI's name; the host's, for a root that is no image's.

    :raise InvalidArgument: there is no such machine.
    """
    if image is None:
        return architectures.host()
    config = image.config
    return architectures.machine_for(config.os, config.architecture, config.variant)


def of_images(names: Sequence[str], images: Sequence[StoredImage | None]) -> str:
    """Of a machine that runs all of them; the host's, for none.

    :raise InvalidArgument: there is no such machine.
    """
    needed = [of_image(image) for image in images]
    for name, architecture in zip(names, needed, strict=True):
        if architecture != needed[0]:
            raise InvalidArgument(
                f"the containers of a pod share its processors: image {names[0]} is for {needed[0]}, "
                f"and image {name} for {architecture}",
                hint=_HINT,
            )
    return needed[0] if needed else architectures.host()


def check_joins(pod: Pod, name: str, image: StoredImage | None) -> None:
    """:raise InvalidArgument: the pod's machine does not run the image."""
    has, needed = pod.architecture or architectures.host(), of_image(image)
    if has != needed:
        raise InvalidArgument(f"pod {pod.name} has processors of {has}, and image {name} is for {needed}", hint=_HINT)


def warnings(pod: Pod) -> list[str]:
    """What whoever makes a pod should know of its processors."""
    if not architectures.is_foreign(pod.architecture):
        return []
    return [f"this host is {architectures.host()}: linux/{pod.architecture} runs emulated, several times slower"]
