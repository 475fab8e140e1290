# SPDX-License-Identifier: Apache-2.0
"""What registries have, and whether they let somebody in: asked, and nothing of it kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..errors import InvalidArgument, Unauthorized
from ..jail import helpers
from ..model.reference import Source, parse_reference
from ..sys.documents import UNREADABLE
from ..sys.removal import temporary_directory
from . import skopeo, transport
from .manifests import MANIFEST, Descriptor, ImageConfig, digest_of, is_index, media_type, read_index
from .skopeo import STALLED, Access, Wall


@dataclass(frozen=True)
class RemoteImage:
    """What a name stands for in a registry, and the platforms that it is for."""

    entry: Descriptor
    platforms: list[dict[str, Any]]


class Registries:
    """Those that names of images say."""

    def __init__(self, insecure: frozenset[str], staging: Path, wall: Callable[[], Wall | None]) -> None:
        """`insecure` are without TLS, or with a certificate that nobody vouches for."""
        self._insecure = insecure
        self._staging = staging
        self._wall = wall

    def _access(self, auth: str) -> Access:
        """For who asks."""
        return Access(self._insecure, auth, wall=self._wall())

    async def tags(self, repository: str, *, auth: str = "") -> list[str]:
        """What a registry has of a repository.

        :raise NotFound: there is none; and what `list_tags` raises.
        """
        reference = parse_reference(repository)
        source = Source("docker", reference.full)
        what = reference._replace(tag="", digest="").familiar
        return await skopeo.list_tags(source, self._access(auth), what)

    async def look(self, name: str, *, auth: str = "") -> RemoteImage:
        """:raise NotFound: the registry has none of this name; and what `inspect_raw` raises."""
        reference = parse_reference(name)
        source, access = Source("docker", reference.full), self._access(auth)
        raw = await skopeo.inspect_raw(source, access, reference.familiar)
        entry = Descriptor(media_type=media_type(raw, MANIFEST), digest=digest_of(raw), size=len(raw))
        if is_index(raw):
            return RemoteImage(entry, [c.platform for c in read_index(raw).manifests if c.platform])
        config = await skopeo.inspect_raw(source, access, reference.familiar, config=True)
        try:
            found = msgspec.json.decode(config, type=ImageConfig)
        except UNREADABLE as error:
            raise InvalidArgument(f"the configuration of {reference.familiar} cannot be read: {error}") from error
        platform = {"architecture": found.architecture, "os": found.os}
        return RemoteImage(entry, [platform | ({"variant": found.variant} if found.variant else {})])

    async def login(self, host: str, user: str, password: str) -> None:
        """Whether a registry lets somebody in.

        :raise Unauthorized: it does not. :raise Unavailable: it cannot be asked.
        """
        if not user or not password:
            raise Unauthorized(f"cannot log in to {host}: a user name and a password are needed")
        source = Source("docker", parse_reference(f"{host}/login").full)
        access = self._access("")
        async with temporary_directory(self._staging) as place, access.user(source) as own:
            skopeo.lend(helpers.user(own), place)
            args = [
                "--command-timeout", f"{STALLED:g}s", "login", "--authfile", str(place / "auth.json"),
                *access.tls_options(source, ""), "--username", user, "--password-stdin", host,
            ]  # fmt: skip
            done = await helpers.run(transport.order(args, source, own, place=place), password.encode())
        if done.status:
            raise skopeo.error_from(done.stderr, host, "log in to")
