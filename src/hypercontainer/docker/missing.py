# SPDX-License-Identifier: Apache-2.0
"""What a route names and is not there, in Docker's words: libraries tell by them an image from all else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from ..engine.engine import Engine
from ..errors import HyperError, InvalidArgument, NotFound
from ..model.reference import parse_reference


def image(name: str) -> NotFound:
    """By its full tag, as Docker has it."""
    with contextlib.suppress(InvalidArgument):
        name = parse_reference(name).familiar
    return NotFound(f"No such image: {name}")


# The beginnings of routes: what looks a thing up, and what says that there is none.
_KINDS: dict[str, tuple[Callable[[Engine, str], object], Callable[[str], NotFound]]] = {
    "/images/{name": (lambda engine, name: engine.images.find(name), image),
    "/volumes/{name": (
        lambda engine, name: engine.registry.volume(name),
        lambda name: NotFound(f"get {name}: no such volume"),
    ),
    "/exec/{name": (
        lambda engine, name: engine.execs.get(name),
        lambda name: NotFound(f"No such exec instance: {name}"),
    ),
}


def reworded(engine: Engine, path: str, name: str, error: NotFound) -> NotFound:
    """The error of an operation at that path, unless it was something else that it did not find."""
    for beginning, (find, words) in _KINDS.items():
        if path.startswith(beginning) and not path.endswith("/push"):  # which says itself what it does not find
            try:
                find(engine, name)
            except NotFound:
                return words(name)
            except HyperError:
                return error
    return error
