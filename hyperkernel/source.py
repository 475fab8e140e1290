# SPDX-License-Identifier: Apache-2.0
"""Where hyperkernel's source comes from: the tested version, or a newer one of Debian's when that is no longer offered.

pin.json names the version that was tested and its tarball's SHA-256. Debian's
security archive replaces a kernel's source every few weeks, and keeps an old one
for a while only. Then the newest is built, with a warning: apt has verified the
archive's signature and the package's hash, dpkg that the file is as installed.
"""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

# apt refuses these without being asked unless somebody has configured otherwise.
_SIGNED_ONLY = ("-o", "APT::Get::AllowUnauthenticated=false", "-o", "Acquire::AllowInsecureRepositories=false")


class BuildError(Exception):
    """What failed, and what to do."""


@dataclass(frozen=True)
class Pin:
    """What pin.json says of the source that was tested."""

    package: str
    version: str
    file: Path  # where the package has the tarball
    sha256: str  # the tarball's
    steps: int  # lines that make prints for vmlinux
    core_seconds: int  # of one core, for the whole build


@dataclass(frozen=True)
class Source:
    """A tarball whose origin is known."""

    path: Path
    version: str
    sha256: str
    tested: bool  # it is the pinned one


def digest(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _output(*command: str) -> str:
    """What a command prints; "" when it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def is_newer(version: str, than: str) -> bool:
    """By Debian's order of versions."""
    return subprocess.run(["dpkg", "--compare-versions", version, "gt", than], check=False).returncode == 0


def offered(package: str) -> list[str]:
    """Versions in the archives that apt knows, in apt-cache's order: the newest first."""
    rows = (line.split("|") for line in _output("apt-cache", "madison", package).splitlines())
    return [row[1].strip() for row in rows if len(row) == 3 and row[0].strip() == package]


def choose(pin: Pin, versions: list[str]) -> str:
    """The pinned version when it is offered, else the newest that is newer.

    :raise BuildError: when there is neither.
    """
    if pin.version in versions:
        return pin.version
    best = pin.version
    for version in versions:
        if is_newer(version, best):
            best = version
    if best == pin.version:
        raise BuildError(
            f"apt offers neither {pin.package} {pin.version} nor a newer one ({', '.join(versions) or 'none at all'}): "
            "add Debian's security archive to apt's sources, or name the tarball with --source"
        )
    return best


def installed(pin: Pin) -> Source | None:
    """The tarball as the package manager has it: the pinned one, or a newer one of a package as it was installed.

    None when there is none, an older one, or one that differs from its package.
    """
    if not pin.file.exists():
        return None
    sha256 = digest(pin.file)
    if sha256 == pin.sha256:
        return Source(pin.file, pin.version, sha256, tested=True)
    version = _output("dpkg-query", "-W", "-f=${Version}", pin.package).strip()
    verified = subprocess.run(["dpkg", "--verify", pin.package], capture_output=True, text=True, check=False)
    if not version or verified.returncode or verified.stdout.strip() or not is_newer(version, pin.version):
        return None
    return Source(pin.file, version, sha256, tested=False)


def _apt(*arguments: str) -> None:
    command = ["apt-get", "-qq", *_SIGNED_ONLY, *arguments]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        words = done.stderr.strip().splitlines()
        raise BuildError(f"`{' '.join(command)}` failed: {words[-1] if words else done.returncode}")


def install(pin: Pin) -> Source:
    """Install the package: the pinned version, or a newer one.

    :raise BuildError: when it cannot be had, or is not what it should be.
    """
    _apt("update")
    version = choose(pin, offered(pin.package))
    print(f"hyperkernel: installing {pin.package} {version}", flush=True)
    _apt("install", "-y", "--no-install-recommends", "--allow-downgrades", f"{pin.package}={version}")
    found = installed(pin)
    if found is None or found.version != version:
        raise BuildError(f"{pin.file} is not what {pin.package} {version} has: install the package again")
    return found


def find(pin: Pin) -> Source:
    """The pinned source while it is to be had, else a newer one.

    :raise BuildError: when there is neither.
    """
    found = installed(pin)
    if found and (found.tested or pin.version not in offered(pin.package)):
        return found
    return install(pin)


def given(pin: Pin, path: Path) -> Source:
    """A tarball that the user names, which must be the pinned one: nobody vouches for another.

    :raise BuildError: when it is not there, or is another.
    """
    if not path.exists():
        raise BuildError(f"{path} does not exist: name the kernel's source with --source")
    sha256 = digest(path)
    if sha256 != pin.sha256:
        raise BuildError(
            f"{path} has SHA-256 {sha256}, not the pinned {pin.sha256}: "
            f"take it from {pin.package} {pin.version}, or change hyperkernel/pin.json"
        )
    return Source(path, pin.version, sha256, tested=True)


def warning(pin: Pin, source: Source) -> str:
    """What to say of a source that was not tested; "" of the one that was."""
    if source.tested:
        return ""
    return (
        f"warning: building {pin.package} {source.version}, which was not tested: "
        f"Debian no longer offers {pin.version}, which was"
    )
