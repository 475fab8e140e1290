# SPDX-License-Identifier: Apache-2.0
"""Which source hyperkernel is built of, as Debian's archive goes on: apt and dpkg are stand-ins."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hyperkernel import source

PACKAGE = "linux-source-6.1"
TESTED = "6.1.100-1"

# An archive is a file with its versions, newest first; what is installed, another with one version.
_APT = """#!/bin/sh
cd {state}; echo "$(basename $0) $*" >> calls
case "$(basename $0) $*" in
"apt-cache madison"*)
    while read v; do echo " linux-source-6.1 |  $v | http://deb.example bookworm/main Packages"; done < archive ;;
*update) test ! -e offline || {{ echo "E: no route" >&2; exit 100; }} ;;
*install*) v=${{*##*=}}; grep -qx "$v" archive || {{ echo "E: Version '$v' was not found" >&2; exit 100; }}
    echo "$v" > installed; printf 'source %s' "$v" > tarball ;;
dpkg-query*) test -e installed || exit 1; cat installed ;;
"dpkg --verify"*) test "$(cat tarball)" = "source $(cat installed)" || echo '??5??????   /usr/src/tarball' ;;
*) exec /usr/bin/dpkg "$@" ;;
esac
"""


class Debian:
    """A host with an archive and, perhaps, an installed package."""

    def __init__(self, state: Path, bin_: Path) -> None:
        self.state = state
        for name in ("apt-get", "apt-cache", "dpkg", "dpkg-query"):
            (bin_ / name).write_text(_APT.format(state=state))
            (bin_ / name).chmod(0o755)
        self.pin = source.Pin(
            PACKAGE, TESTED, state / "tarball", hashlib.sha256(f"source {TESTED}".encode()).hexdigest(), 1850, 720
        )

    def offer(self, *versions: str) -> None:
        (self.state / "archive").write_text("".join(f"{v}\n" for v in versions))

    def install(self, version: str) -> None:
        (self.state / "installed").write_text(f"{version}\n")
        (self.state / "tarball").write_text(f"source {version}")

    def calls(self) -> list[str]:
        path = self.state / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Debian:
    (tmp_path / "bin").mkdir()
    (tmp_path / "state").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return Debian(tmp_path / "state", tmp_path / "bin")


def test_the_tested_source_is_used_as_it_is(debian: Debian) -> None:
    debian.offer("6.1.101-1", TESTED)
    debian.install(TESTED)
    found = source.find(debian.pin)
    assert (found.version, found.tested, source.warning(debian.pin, found)) == (TESTED, True, "")
    assert not any("apt-get" in call for call in debian.calls())


def test_the_tested_source_is_installed_while_it_is_offered(debian: Debian) -> None:
    debian.offer("6.1.101-1", TESTED)
    assert source.find(debian.pin).tested
    assert any(call.endswith(f"{PACKAGE}={TESTED}") and "AllowUnauthenticated=false" in call for call in debian.calls())


def test_also_when_a_newer_one_is_installed(debian: Debian) -> None:
    debian.offer("6.1.101-1", TESTED)
    debian.install("6.1.101-1")
    assert source.find(debian.pin).tested


def test_the_newest_is_used_when_the_tested_one_is_gone(debian: Debian) -> None:
    debian.offer("6.1.99-1", "6.1.110-1", "6.1.109-1")
    found = source.find(debian.pin)
    assert (found.version, found.tested) == ("6.1.110-1", False)
    assert found.sha256 == hashlib.sha256(b"source 6.1.110-1").hexdigest()
    assert source.warning(debian.pin, found) == (
        "warning: building linux-source-6.1 6.1.110-1, which was not tested: "
        "Debian no longer offers 6.1.100-1, which was"
    )
    before = len(debian.calls())
    assert source.find(debian.pin) == found
    assert not any("apt-get" in call for call in debian.calls()[before:])


def test_an_older_one_is_no_substitute(debian: Debian) -> None:
    debian.offer("6.1.99-1")
    with pytest.raises(source.BuildError, match="neither linux-source-6.1 6.1.100-1 nor a newer one"):
        source.find(debian.pin)


def test_a_tarball_that_differs_from_its_package_is_not_built(debian: Debian) -> None:
    debian.offer("6.1.110-1")
    debian.install("6.1.110-1")
    debian.pin.file.write_text("source of somebody else")
    assert source.installed(debian.pin) is None
    assert source.find(debian.pin).sha256 == hashlib.sha256(b"source 6.1.110-1").hexdigest()  # it is installed anew


def test_an_archive_that_cannot_be_reached_is_named(debian: Debian) -> None:
    debian.offer(TESTED)
    (debian.state / "offline").touch()
    with pytest.raises(source.BuildError, match="failed: E: no route"):
        source.find(debian.pin)


def test_a_tarball_of_the_users_must_be_the_tested_one(debian: Debian, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    with pytest.raises(source.BuildError, match="does not exist"):
        source.given(debian.pin, mine)
    mine.write_text("source 6.1.110-1")
    with pytest.raises(source.BuildError, match="not the pinned"):
        source.given(debian.pin, mine)
    mine.write_text(f"source {TESTED}")
    assert source.given(debian.pin, mine).tested


def test_a_build_of_a_newer_source_is_found_again(debian: Debian, tmp_path: Path, repository: Path) -> None:
    """By the program itself, whose kernel was built before: it warns, and has nothing to do."""
    debian.offer("6.1.110-1")
    shutil.copytree(repository / "hyperkernel", tmp_path / "hyperkernel")
    pin = {f: getattr(debian.pin, f) for f in ("package", "version", "sha256", "steps", "core_seconds")}
    (tmp_path / "hyperkernel/pin.json").write_text(json.dumps({**pin, "file": str(debian.pin.file)}))
    command = [sys.executable, str(tmp_path / "hyperkernel/build.py"), "--arch", "amd64"]
    env = {**os.environ, "HYPER_CACHE": str(tmp_path / "cache")}
    first = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert first.returncode == 1 and "building linux 6.1.110-1 for amd64 once: about" in first.stdout
    assert "which was not tested" in first.stderr and "the build failed" in first.stderr  # it is no tarball
    key = (
        "from build import *; "
        f"print(key({hashlib.sha256(b'source 6.1.110-1').hexdigest()!r}, options_of(HERE/'fragment.config', 'x86_64')))"
    )
    name = subprocess.check_output([sys.executable, "-c", key], cwd=tmp_path / "hyperkernel", text=True).strip()
    target = tmp_path / "cache/kernel" / name
    target.mkdir(parents=True)
    (target / "kernel.json").write_text("{}")
    again = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (0, f"hyperkernel: up to date at {target}\n")
    assert "which was not tested" in again.stderr


def test_the_progress_says_how_long_it_will_take(repository: Path) -> None:
    code = "from build import ProgressLine; p = ProgressLine(40, 600); [p.step() for _ in range(40)]; p.finish()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository / "hyperkernel", capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "hyperkernel: compiling 10%, 0 s, about 9 minutes left"
    assert len(lines) == 10 and lines[-1] == "hyperkernel: compiled in 0 s"


def test_an_option_is_for_all_machines_or_for_one(tmp_path: Path, repository: Path) -> None:
    fragment = tmp_path / "fragment.config"
    fragment.write_text("CONFIG_A=y\n# [x86_64]\nCONFIG_X=y\n# [aarch64]\n# CONFIG_X is not set\n# [all]\nCONFIG_Z=y\n")
    code = "from architecture import *; print([options_of(Path({!r}), m) for m in ('x86_64', 'aarch64')])"
    command = [sys.executable, "-c", code.format(str(fragment))]
    found = subprocess.check_output(command, cwd=repository / "hyperkernel", text=True)
    assert found.strip() == str(
        [["CONFIG_A=y", "CONFIG_X=y", "CONFIG_Z=y"], ["CONFIG_A=y", "# CONFIG_X is not set", "CONFIG_Z=y"]]
    )


def test_a_kernel_for_another_machine_takes_a_compiler_for_it(repository: Path, tmp_path: Path) -> None:
    code = (
        "from dataclasses import replace; from build import *\n"
        "other = replace(ARCHITECTURES['arm64'], machine='vax', triplet='vax-linux-gnu', package='gcc-vax-linux-gnu')\n"
        "print(other.variables)\n"
        "try: check_compiler(other)\n"
        "except BuildError as error: print(error)\n"
    )
    done = subprocess.check_output([sys.executable, "-c", code], cwd=repository / "hyperkernel", text=True)
    assert done.splitlines() == [
        "['ARCH=arm64', 'CROSS_COMPILE=vax-linux-gnu-']",
        "vax-linux-gnu-gcc is not installed: install the package gcc-vax-linux-gnu",
    ]
