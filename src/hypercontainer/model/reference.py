# SPDX-License-Identifier: Apache-2.0
"""Image references, with Docker Hub's rules for short names.

https://github.com/distribution/reference gives the grammar.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..errors import InvalidArgument

TRANSPORTS = ("docker", "docker-archive", "oci", "oci-archive", "docker-daemon", "builtin")
PLACES = ("docker-archive", "oci", "oci-archive", "docker-daemon")  # where an image is taken from anew each time
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"^{_COMPONENT}(?:/{_COMPONENT})*\Z")
_HOST = re.compile(r"^(?:\[[0-9a-fA-F:]+\]|[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?)(?::[0-9]+)?\Z")
_TAG = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}\Z")
_HUB = "docker.io"


class Reference(NamedTuple):
    """A normalised name: registry host, repository path, tag or digest."""

    host: str
    path: str
    tag: str  # "" when a digest alone was given
    digest: str

    @property
    def repository(self) -> str:
        return f"{self.host}/{self.path}"

    @property
    def full(self) -> str:
        """`docker.io/library/busybox:latest`"""
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def familiar(self) -> str:
        """`busybox:latest`: as people write it."""
        name = self.repository
        if self.host == _HUB:
            name = self.path.removeprefix("library/")
        return name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


class Source(NamedTuple):
    """Where an image comes from: a transport and what it needs."""

    transport: str
    location: str


def _invalid(text: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"invalid image reference {text!r}: {why}", hint="write [HOST[:PORT]/]NAME[:TAG|@DIGEST]")


def parse_reference(text: str) -> Reference:
    """:raise InvalidArgument: when the text is no reference."""
    rest, _, digest = text.partition("@")
    if "@" in text and not _DIGEST.match(digest):
        raise _invalid(text, "the digest must be sha256: and 64 hexadecimal digits")
    tag = ""
    if ":" in rest.rsplit("/", 1)[-1]:
        rest, _, tag = rest.rpartition(":")
        if not _TAG.match(tag):
            raise _invalid(text, "bad tag")
    first, slash, remainder = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        host, path = first, remainder
    else:
        host, path = _HUB, rest if slash else f"library/{rest}"
    if host == "index.docker.io":
        host = _HUB
    if not _HOST.match(host):
        raise _invalid(text, f"bad host {host!r}")
    if not path or not _PATH.match(path):
        why = "a repository is in lower case" if path.lower() != path else "bad repository name"
        raise _invalid(text, why)
    if not tag and not digest:
        tag = "latest"
    return Reference(host, path, tag, digest)


def tag_of(text: str) -> str:
    """A name that an image is to have, in full; "" is none.

    :raise InvalidArgument: it is malformed, or has a digest.
    """
    if not text:
        return ""
    found = parse_reference(text)
    if found.digest:
        raise InvalidArgument(f"cannot name an image {text!r}: a tag has no digest")
    return found.full


def name_matches(name: str, pattern: str) -> bool:
    """By Go's path.Match, as Docker's filter `reference`: on a name with its tag and without, short and in full."""
    parts = {"*": "[^/]*", "?": "[^/]"}  # they stop at slashes
    wanted = "".join(
        part if len(part) > 2 else parts.get(part, re.escape(part))
        for part in re.findall(r"\[[^]/\\]+\]|.", pattern, re.S)
    )
    reference = parse_reference(name)
    bare = reference._replace(tag="", digest="")
    every = (reference.familiar, bare.familiar, reference.full, bare.full)
    try:
        return any(re.fullmatch(wanted, n) for n in every)
    except re.error:  # a range that is none
        return False


def parse_source(text: str) -> Source:
    """A source for a pull: `transport:location`, or a plain name, which is `docker`.

    :raise InvalidArgument: when the transport needs more, or a name is malformed.
    """
    for transport in TRANSPORTS:
        prefix = f"{transport}:"
        if text.startswith(prefix) and (transport != "docker" or text.startswith("docker://")):
            location = text.removeprefix(prefix).removeprefix("//")
            if not location:
                raise InvalidArgument(f"{prefix} needs a path or a name", hint=f"for example {prefix}/tmp/image")
            if transport == "docker":
                return Source("docker", parse_reference(location).full)
            return Source(transport, location)
    return Source("docker", parse_reference(text).full)


def short_name(image: str) -> str:
    """`nginx` of `docker.io/library/nginx:1@sha256:...`: fit to be part of a container's name."""
    last = image.partition("@")[0].rstrip("/").rpartition("/")[2].partition(":")[0]
    return re.sub(r"[^a-zA-Z0-9_.-]", "-", last) or "image"
