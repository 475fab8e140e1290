# SPDX-License-Identifier: Apache-2.0
"""Images that a build begins with, as far as its Dockerfile is known here: hyperd has them before the builder looks."""

from __future__ import annotations

import re

from ..client.api import Client
from ..errors import NotFound
from .buildcontext import BuildContext
from .pulling import pull_image

_FROM = re.compile(r"^\s*FROM\s+(?:--platform=(\S+)\s+)?(\S+)(?:\s+AS\s+(\S+))?\s*$", re.IGNORECASE | re.MULTILINE)
_ARG = re.compile(r"^\s*ARG\s+(\w+)(?:=(\S+))?\s*$", re.IGNORECASE | re.MULTILINE)
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::-([^}]*))?\}|(\w+))")


def take_bases(
    hyperd: Client, context: BuildContext, arguments: dict[str, str], *, pull: bool, platform: str, quiet: bool
) -> None:
    """Have those in hyperd's store, as `run` has them: with this user's credentials, and as its policy allows."""
    for name, wanted in base_images(context.dockerfile, arguments):
        wanted = wanted if "$" not in wanted else ""
        try:
            if pull:
                raise NotFound(name)
            hyperd.open("GET", "/images/inspect", {"name": name}).read()
        except NotFound:
            pull_image(hyperd, name, platform=wanted or platform, quiet=quiet)


def base_images(dockerfile: str, arguments: dict[str, str]) -> list[tuple[str, str]]:
    """Images and platforms that the stages of a Dockerfile name; not those that are stages, or not known here."""
    known = {name: value.strip("\"'") for name, value in _ARG.findall(dockerfile) if value} | arguments
    stages, found = {"scratch"}, []
    for platform, name, stage in _FROM.findall(dockerfile):
        full = _VARIABLE.sub(lambda m: str(known.get(m[1] or m[3], m[2] or m[0])), name)
        if full.lower() not in stages and "$" not in full:
            found.append((full, platform))
        stages.add(stage.lower())
    return list(dict.fromkeys(found))
