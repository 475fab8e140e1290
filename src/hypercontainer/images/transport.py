# SPDX-License-Identifier: Apache-2.0
"""What skopeo is handed: the host's network, names and certificates, its source and its target."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..errors import Unavailable
from ..jail import helpers
from ..jail.jail import Entry, Limits, Order
from ..model.reference import Source
from ..sys import users

# Names of hosts, certificates of authorities, and how registries are reached: containers-registries.conf(5),
# containers-certs.d(5), containers-policy.json(5).
_HOST = (
    "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/services", "/etc/ssl", "/etc/pki",
    "/etc/ca-certificates", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/usr/share/pki",
    "/etc/containers", "/usr/share/containers", "/etc/docker/certs.d",
)  # fmt: skip
_HOME = "/home"  # in its jail
# Its cache, for users and for root (a user is root in a user namespace): containers/image's pkg/blobinfocache.
_SEEN = (f"{_HOME}/.local/share/containers/cache", "/var/lib/containers/cache")
_DAEMON = Path("/var/run/docker.sock")  # of the transport docker-daemon
_READS_ALL = 2  # CAP_DAC_READ_SEARCH: a source, or a key, may be its owner's only
_PATHS = re.compile(r'"(?:keyPath|caRootsPath|rekorPublicKeyPath)"\s*:\s*"(/[^"]+)"|"(/[^"]+)"')
_LOOKASIDE = re.compile(r"file://(/\S+)")
_GPG = ("gpg", "gpgconf", "gpgsm")  # libgpgme asks them
_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE",
              "SSL_CERT_DIR", "REGISTRIES_CONFIG_PATH", "DOCKER_HOST")  # fmt: skip


def pick_user(source: Source) -> int:
    """As whom it shall run: the socket of Docker's daemon is root's."""
    return 0 if source.transport == "docker-daemon" else users.pick_for_conversion()[0]


def has_proxy() -> bool:
    """Whether somebody else connects for it, who may be on this host."""
    return any(os.environ.get(name) for name in _VARIABLES[:2] + _VARIABLES[3:5])


def order(
    args: list[str], source: Source, own_user: int, *, policy: str = "", signatures: str = "",
    place: Path | None = None, credentials: int = -1, file_size: int = -1, seen: Path | None = None,
) -> Order:  # fmt: skip
    """`place` and `seen` are directories of `own_user` that it writes to, `credentials` is a descriptor.

    In `seen` it keeps where it has seen which blob: another repository of a registry need not be sent it again.

    :raise Unavailable: skopeo is not installed.
    """
    home = Path.home()
    shown = [*map(Path, _HOST), *_local(source), *_trust(policy, signatures, home)]
    files = [Entry(p) for p in dict.fromkeys(shown) if p.exists()]
    own, settings = _HOME if helpers.jail().confines else str(home), home / ".config/containers"
    files += [Entry(settings, f"{_HOME}/.config/containers")] if settings.exists() else []
    files += [Entry(place, writable=True)] if place else []
    files += [Entry(seen, target, writable=True) for target in _SEEN] if seen else []
    environment = {name: value for name in _VARIABLES if (value := os.environ.get(name))}
    files += [Entry(Path(p)) for name in _VARIABLES[6:9] if (p := environment.get(name)) and os.path.exists(p)]
    scratch = ("--tmpdir", place) if place else ()  # it unpacks archives into /var/tmp otherwise, whatever TMPDIR is
    made = helpers.order(
        helpers.find("skopeo"), *scratch, *args, files=tuple(files), own_user=own_user,
        environment={**environment, "HOME": own, "TMPDIR": str(place or own)},
        limits=Limits(file_size=file_size),
    )  # fmt: skip
    return replace(
        made,
        host_network=True,
        capabilities=frozenset({_READS_ALL}) if os.geteuid() == 0 else frozenset(),
        descriptors=(credentials,) if credentials >= 0 else (),
    )


def _local(source: Source) -> Iterator[Path]:
    """What of this host the source is."""
    if source.transport == "docker-daemon":
        yield _DAEMON
    elif source.transport != "docker":
        yield Path(source.location.partition(":")[0])


def _trust(policy: str, signatures: str, home: Path) -> Iterator[Path]:
    """A policy with the keys that it names, gpg where it asks for signatures, and directories where these lie."""
    usual = (home / ".config/containers/policy.json", Path("/etc/containers/policy.json"))
    for path in filter(Path.is_file, [Path(policy)] if policy else usual):
        text = path.read_text(errors="replace")
        yield from [path] if policy else []
        yield from (p for match in _PATHS.finditer(text) if (p := Path(match[1] or match[2])).is_file())
        if "signedBy" in text:
            yield from _gpg()
    yield from [Path(signatures)] if signatures else []
    for directory in (Path(signatures or "/etc/containers/registries.d"), home / ".config/containers/registries.d"):
        for path in directory.glob("*.yaml"):
            yield from map(Path, _LOOKASIDE.findall(path.read_text(errors="replace")))


def _gpg() -> Iterator[Path]:
    for name in _GPG:
        try:
            yield from (entry.source for entry in helpers.program(helpers.find(name)))
        except Unavailable:
            continue
