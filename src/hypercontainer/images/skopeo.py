# SPDX-License-Identifier: Apache-2.0
"""skopeo: transports, credentials, mirrors, signatures."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import (
    HyperError,
    InvalidArgument,
    NoSpace,
    NotFound,
    PermissionDenied,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from ..jail import helpers
from ..model.reference import Source, parse_reference
from ..sys import users
from . import transport
from .limits import DOCUMENT_MAX
from .trust import Trust

# skopeo has one exit status for everything: its words are all there is to
# tell errors apart. Most specific first.
_ERRORS: tuple[tuple[str, type[HyperError], str, str], ...] = (
    (
        r"sigstore disabled",  # Debian 12
        Unsupported,
        "the image policy asks for a sigstore signature, and this host's skopeo is built without",
        "sign with GPG (`signedBy`), or install another skopeo",
    ),
    (
        r"Source image rejected|is rejected by policy",
        PermissionDenied,
        "the image policy refuses it: {detail}",
        "have it signed, or change the policy (`image_policy`)",
    ),
    (
        r"invalid policy in|error loading trust policy|Error loading trust policy",
        Unavailable,
        "the image policy cannot be used: {detail}",
        "correct the file (`image_policy`)",
    ),
    (
        r"no space left on device|disk quota exceeded",
        NoSpace,
        "no space left on the image store's disk",
        "free some, for example by `hyperctl image-prune -a`",
    ),
    (r"read-only file system", Unavailable, "the image store's file system is read-only", "mount it writable"),
    (
        r"exceeded maximum allowed size",
        InvalidArgument,
        "its manifest or configuration is larger than 4 MiB",
        "check what it is",
    ),
    (
        r"file too large",
        InvalidArgument,
        "it has a layer of more than image_size",
        "raise image_size in hyperd's configuration if you trust it",
    ),
    (
        r"manifest unknown|NAME_UNKNOWN|name unknown|repository name not known|unknown: Not Found|status code 404"
        r"|404 \(Not Found\)",
        NotFound,
        "no such image or tag",
        "check the name and the tag",
    ),
    (
        r"unauthorized|authentication required|requested access .* denied|status 40[13]|invalid username/password",
        Unauthorized,
        "the registry refused the credentials",
        "log in with `hyperctl login REGISTRY`",
    ),
    (
        r"no such host|name resolution|server misbehaving",
        Unavailable,
        "no such registry: its name cannot be resolved",
        "check the host name and the network",
    ),
    (
        r"network is unreachable|no route to host",
        Unavailable,
        "this host has no network to reach the registry by",
        "check the network, or bring an archive with `hyperctl load`",
    ),
    (r"connection refused", Unavailable, "nothing answers at the registry's address", "check host and port"),
    (
        r"gave HTTP response to HTTPS client",
        Unavailable,
        "the registry speaks plain HTTP",
        "add it to `insecure_registries` in hyperd's configuration",
    ),
    (
        r"certificate|x509",
        Unavailable,
        "the registry's certificate is not trusted",
        "install its CA, or add it to `insecure_registries`",
    ),
    (
        r"Digest did not match|digest mismatch|does not match expected|did not match the digest|Verifying",
        Unavailable,
        "what the registry sent does not match its digest",
        "try again; if it persists the registry is damaged",
    ),
    (r"no such file or directory", NotFound, "no such file", "check the path"),
    (
        r"i/o timeout|context deadline exceeded|TLS handshake timeout|connection reset|EOF",
        Unavailable,
        "the connection to the registry broke",
        "try again",
    ),
    (
        r"invalid tar header|unexpected EOF|not a valid|loading index|manifest.json not found"
        r"|unsupported|error parsing|invalid character",
        InvalidArgument,
        "not an image of this kind",
        "check what the file is",
    ),
)
STALLED = 180.0  # seconds after which a registry that sends nothing is given up
_WORDS_MAX = 1 << 16  # bytes of its messages
_NOBODY = "00000000-0000-0000-0000-000000000000"  # as registries call the user of an identity token
_LEVEL = re.compile(r'msg="(.*)"$')


def error_from(stderr: str, what: str, verb: str = "pull") -> HyperError:
    """The error that skopeo's output stands for."""
    lines = stderr.strip().splitlines() or ["no message"]
    match = _LEVEL.search(lines[-1])
    detail = match[1].replace('\\"', '"') if match else lines[-1]
    for pattern, kind, message, hint in _ERRORS:
        if re.search(pattern, stderr):
            return kind(f"cannot {verb} {what}: {message.format(detail=detail)}", hint=hint)
    return Unavailable(f"cannot {verb} {what}: {detail}")


class Platform(NamedTuple):
    """`os/architecture[/variant]`."""

    os: str
    architecture: str
    variant: str = ""


Wall = Callable[[], contextlib.AbstractAsyncContextManager[bool]]


@dataclass(frozen=True)
class Access:
    """How to reach a source; `auth` is Docker's X-Registry-Auth, base64 of JSON."""

    insecure: frozenset[str] = frozenset()
    auth: str = ""
    trust: Trust = field(default_factory=Trust)
    wall: Wall | None = None  # for whom this host's own addresses are none of his business: `Choice.wall`

    @contextlib.asynccontextmanager
    async def user(self, source: Source) -> AsyncIterator[int]:
        """As whom skopeo runs. A registry may send it on to any address, or its name have another one by then."""
        if self.wall is None or source.transport != "docker" or transport.has_proxy():
            yield transport.pick_user(source)
            return
        async with self.wall() as stands:
            yield users.pick_stranger() if stands else transport.pick_user(source)

    def tls_options(self, source: Source, prefix: str) -> list[str]:
        """skopeo's options for a registry without TLS; `prefix` is "src-" or "dest-", or ""."""
        if source.transport != "docker":
            return []
        host = parse_reference(source.location).host
        # Docker's rule: a registry on this host needs no TLS.
        local = re.match(r"(localhost|127\.[0-9.]+|\[::1\])(:|$)", host)
        return [f"--{prefix}tls-verify=false"] if local or host in self.insecure else []

    @contextlib.contextmanager
    def credentials(self, source: Source) -> Iterator[int]:
        """A descriptor with the caller's credentials, an authfile, for as long as the block runs; -1: none."""
        if not self.auth or source.transport != "docker":
            yield -1
            return
        try:
            login = _login(json.loads(base64.urlsafe_b64decode(self.auth + "=" * (-len(self.auth) % 4))))
        except (ValueError, KeyError, TypeError):
            raise InvalidArgument("malformed registry credentials", hint="log in again with `hyperctl login`") from None
        host = parse_reference(source.location).host
        fd = os.memfd_create("credentials", os.MFD_CLOEXEC)
        try:
            os.write(fd, json.dumps({"auths": {host: login}}).encode())
            yield fd
        finally:
            os.close(fd)


def _login(given: dict[str, str]) -> dict[str, str]:
    """An entry of an authfile, containers-auth.json(5); it has a user beside an identity token, whoever that is.

    :raise KeyError: neither a password nor a token. :raise TypeError: no document of texts.
    """
    token = given.get("identitytoken") or ""
    user, password = (given.get("username") or _NOBODY, "") if token else (given["username"], given["password"])
    pair = {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
    return {**pair, "identitytoken": token} if token else pair


def spelled(source: Source) -> str:
    """The source as skopeo spells it."""
    return (
        f"{source.transport}://{source.location}"
        if source.transport == "docker"
        else f"{source.transport}:{source.location}"
    )


async def inspect_raw(source: Source, access: Access, what: str, *, config: bool = False) -> bytes:
    """The manifest or index, as it is; or, of an image for one platform, its configuration.

    :raise NotFound: no such image; and what else `error_from` knows.
    """
    with access.credentials(source) as fd:
        which = ["--config"] if config else []
        args = ["--command-timeout", f"{STALLED:g}s", "inspect", "--raw", *which, *authfile("", fd),
                *access.tls_options(source, ""), spelled(source)]  # fmt: skip
        async with (
            access.user(source) as own,
            helpers.running(transport.order(args, source, own, credentials=fd)) as process,
        ):
            raw = b""
            while len(raw) <= DOCUMENT_MAX and (more := await process.output.read(DOCUMENT_MAX)):
                raw += more
            if len(raw) > DOCUMENT_MAX:
                raise InvalidArgument(f"image {what} is refused: its manifest is larger than {DOCUMENT_MAX >> 20} MiB")
            status = await process.wait()
            stderr = process.errors
    if status:
        raise error_from(stderr, what)
    return raw


async def list_tags(source: Source, access: Access, what: str) -> list[str]:
    """The tags of a registry's repository.

    :raise NotFound: no such repository; and what else `error_from` knows.
    """
    reference = parse_reference(source.location)._replace(tag="", digest="")
    with access.credentials(source) as fd:
        args = ["--command-timeout", f"{STALLED:g}s", "list-tags", *authfile("", fd),
                *access.tls_options(source, ""), f"docker://{reference.full}"]  # fmt: skip
        async with access.user(source) as own:
            done = await helpers.run(transport.order(args, source, own, credentials=fd))
    if done.status:
        raise error_from(done.stderr, what)
    try:
        return [str(tag) for tag in json.loads(done.stdout)["Tags"] or []]
    except (ValueError, LookupError, TypeError) as error:
        raise Unavailable(f"cannot pull {what}: the registry's list of tags is not understood") from error


def authfile(prefix: str, fd: int) -> list[str]:
    """skopeo's option for the credentials in a descriptor; -1: there are none."""
    return [f"--{prefix}authfile", f"/proc/self/fd/{fd}"] if fd >= 0 else []


async def copy(
    source: Source, access: Access, platform: Platform, place: Path, what: str, tick: Callable[[], None], size: int
) -> None:
    """Copy into `place`, an OCI layout whose blobs are in `blobs` there; `tick` is called as it goes.

    Blobs that are there already are not fetched. No file may have more than `size` bytes.

    :raise Unavailable: nothing comes any more; and what else `error_from` knows.
    """
    options = ["--override-os", platform.os, "--override-arch", platform.architecture]
    options += ["--override-variant", platform.variant] if platform.variant else []
    blobs = place / "blobs"
    async with access.user(source) as own:
        lend(helpers.user(own), place, blobs, blobs / "sha256")
        with access.credentials(source) as fd:
            args = [
                *access.trust.options(), *options, "copy", "--quiet", *authfile("src-", fd),
                *access.tls_options(source, "src-"),
                "--remove-signatures",  # when they have been looked at: an OCI layout has no place for them
                "--dest-oci-accept-uncompressed-layers", "--dest-shared-blob-dir", str(blobs),
                spelled(source), f"oci:{place}:image",
            ]  # fmt: skip
            trust = access.trust
            order = transport.order(
                args, source, own, policy=trust.policy, signatures=trust.signatures, place=place, credentials=fd,
                file_size=size,
            )  # fmt: skip
            async with helpers.running(order) as process:
                ended = asyncio.ensure_future(process.wait())
                try:
                    await _watch(ended, place, blobs, what, tick)
                finally:
                    ended.cancel()
                status = await process.wait()
                stderr = process.errors
    if status:
        raise error_from(stderr, what)


def lend(user: int, *directories: Path) -> None:
    """Make directories that are this user's, where we may choose."""
    for directory in directories:
        directory.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(directory, user, -1)


async def _watch(ended: asyncio.Future[Any], layout: Path, blobs: Path, what: str, tick: Callable[[], None]) -> None:
    """Wait for the end; :raise Unavailable: when nothing has come for too long."""
    came, since = (0, 0), time.monotonic()
    while not (await asyncio.wait({ended}, timeout=0.2))[0]:
        tick()
        written = 0
        for path in layout.rglob("*"):
            with contextlib.suppress(OSError):  # finished, and moved, in the meantime
                written += path.lstat().st_size
        now = (written, (blobs / "sha256").stat().st_mtime_ns)
        if now != came:
            came, since = now, time.monotonic()
        elif time.monotonic() - since > STALLED:
            raise Unavailable(
                f"cannot pull {what}: nothing has come for {STALLED:g} s",
                hint="check the network and the registry, and try again",
            )
