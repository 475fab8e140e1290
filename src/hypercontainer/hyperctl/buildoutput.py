# SPDX-License-Identifier: Apache-2.0
"""Where the result of a build goes (`--output`), and the cache of others (`--cache-from`, `--cache-to`)."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..client.api import Client
from ..errors import InvalidArgument
from .whole_file import written

if TYPE_CHECKING:
    from .session.grpc import Handler

_ARCHIVES = {"docker": "docker-archive", "oci": "oci-archive"}
_KINDS = ("image", "docker", "oci", "local", "tar", "registry")
_INLINE = "the builder writes a cache into its images only: type=inline"


def attributes(option: str, given: str) -> dict[str, str]:
    """`key=value,key=value`. :raise InvalidArgument: it is none."""
    found = {}
    for part in given.split(","):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise InvalidArgument(f"{option} {given}: {part!r} is not KEY=VALUE")
        found[key.strip().lower()] = value
    return found


@dataclass(frozen=True)
class Output:
    """`kind` is the builder's word for it; `destination` is a path, "" for the store."""

    kind: str = "image"
    destination: str = ""
    push: bool = False

    @property
    def in_store(self) -> bool:
        """Whether the result is an image."""
        return self.kind in ("image", "docker", "oci")

    @property
    def by_session(self) -> bool:
        """Whether the builder gives it to this client."""
        return self.kind in ("local", "tar")

    @property
    def to_stdout(self) -> bool:
        return self.destination == "-"

    def query(self) -> str:
        """The build's parameter `outputs`; "" for the usual one."""
        return "" if self.in_store else json.dumps([{"Type": self.kind, "Attrs": {}}])

    @contextlib.contextmanager
    def taken(self) -> Iterator[dict[str, Handler]]:
        """Handlers of a session that take it; a file is there when all of it has come."""
        if not self.by_session:
            yield {}
            return
        from .session import outputs  # HTTP/2 is not imported for other builds

        if self.kind == "local":
            yield {outputs.PATH: outputs.to_directory(Path(self.destination))}
        else:
            with _opened(self.destination) as out:
                yield {outputs.PATH: outputs.to_file(out, self.destination)}

    def save(self, hyperd: Client, name: str) -> None:
        """An image as an archive, where one was asked for."""
        if not (self.in_store and self.destination):
            return
        query = {"names": json.dumps([name]), "format": _ARCHIVES[self.kind]}
        response = hyperd.open("GET", "/images/save", query)
        with response.connection, _opened(self.destination) as out:
            for chunk in response.chunks():
                out.write(chunk)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """A file, or stdout for `-`. :raise HyperError: it cannot be written."""
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with written(path) as out:
        yield out


def parse_output(given: Iterable[str], *, push: bool) -> Output:
    """`type=KIND,dest=PATH`, or only a directory, or - for a tar on stdout.

    :raise InvalidArgument: it is malformed, there are several, or it would go to a terminal.
    """
    options = list(given)
    if len(options) > 1:
        raise InvalidArgument("the builder gives one output", hint="name --output once, and build again for another")
    if not options:
        return Output(push=push)
    if options[0] == "-":
        found = Output("tar", "-")
    elif "=" not in options[0]:
        found = Output("local", options[0])
    else:
        found = _described(options[0])
    if found.to_stdout and sys.stdout.isatty():
        raise InvalidArgument("refusing to write to a terminal", hint="redirect stdout, or name a file with dest=")
    if push and not found.in_store:
        raise InvalidArgument(f"--push takes an image, not --output {options[0]}")
    return Output(found.kind, found.destination, found.push or push)


def _described(option: str) -> Output:
    fields = attributes("--output", option)
    kind, destination = fields.get("type", ""), fields.get("dest", "")
    if kind not in _KINDS:
        raise InvalidArgument(f"--output {option}: the type is none of {', '.join(_KINDS)}")
    if kind in ("local", "tar", "oci") and not destination:
        raise InvalidArgument(f"--output {option} says no dest", hint="add dest=PATH, or dest=- for stdout")
    if kind in ("image", "registry") and destination:
        raise InvalidArgument(f"--output {option}: {kind} has no dest")
    if kind == "local" and destination == "-":
        raise InvalidArgument("a directory cannot go to stdout", hint="type=tar,dest=-")
    pushed = kind == "registry" or fields.get("push", "") in ("1", "true")
    return Output("image" if kind == "registry" else kind, destination, pushed)


def cache_sources(given: Iterable[str]) -> list[str]:
    """Images of `--cache-from IMAGE|type=registry,ref=IMAGE`. :raise InvalidArgument: another kind."""
    found = []
    for option in given:
        if "=" not in option:
            found.append(option)
            continue
        fields = attributes("--cache-from", option)
        if fields.get("type") != "registry" or not fields.get("ref"):
            raise InvalidArgument(f"--cache-from {option}: the builder reads caches of images only",
                                  hint="type=registry,ref=IMAGE")  # fmt: skip
        found.append(fields["ref"])
    return found


def cache_target(given: Iterable[str]) -> bool:
    """Whether the image shall carry its cache. :raise InvalidArgument: the cache shall go elsewhere."""
    options = list(given)
    for option in options:
        if option != "inline" and attributes("--cache-to", option).get("type") != "inline":
            raise InvalidArgument(f"--cache-to {option} is not supported: {_INLINE}")
    return bool(options)
