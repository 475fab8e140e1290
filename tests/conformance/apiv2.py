# SPDX-License-Identifier: Apache-2.0
"""podman's assertions of Docker's API (`test/apiv2/*.at`), as far as they are of that API and not of podman's own."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

from tests.e2e.conftest import Daemon

from .source import ALPINE

ROOT = Path(__file__).parents[2]
LEAST = 90  # per cent
_DEADLINE = 900.0  # seconds for one file
# Files of which every assertion is of podman's own API, or of its command.
LEFT_OUT = ("15-manifest.at", "22-stop.at", "25-containersMore.at", "40-pods.at", "50-secrets.at", "80-kube.at")
Found = dict[tuple[str, str], tuple[bool, str]]  # file and assertion -> whether it holds, and what was else


def run(tests: Path, podman: Path, daemon: Daemon, registry: str, port: int, place: Path) -> Found:
    """Each file by itself, in a daemon without anything."""
    directory = tests / "test/apiv2"
    image = ALPINE.replace("quay.io", registry).replace("alpine", "alpine_labels") + ":latest"
    found: Found = {}
    for path in sorted(directory.glob("*.at")):
        if path.name in LEFT_OUT:
            continue
        work = place / path.stem
        work.mkdir()
        environment = {**os.environ, "PODMAN": str(podman), "PORT": str(port), "IMAGE": image, "WORKDIR": str(work),
                       "REGISTRY": registry, "DOCKER_HOST": f"unix://{daemon.run}/docker.sock"}  # fmt: skip
        path.write_text(path.read_text().replace("quay.io", registry))
        with open(work / "results", "w") as results:
            script = ["bash", str(Path(__file__).with_suffix(".sh")), str(directory), path.name]
            subprocess.run(
                ["bash", "-c", f'exec 3>&1 >{work}/output.log 2>&1; exec "$@"', "apiv2", *script], stdout=results,
                env=environment, check=False, timeout=_DEADLINE,
            )  # fmt: skip
        found |= _read(path.name, (work / "results").read_text(), registry, str(work))
        _clean(daemon)
    return found


def _read(file: str, text: str, registry: str, work: str) -> Found:
    """An assertion that is there several times is told apart by a number."""
    found: Found = {}
    seen: Counter[str] = Counter()
    for line in text.splitlines():
        word, _, rest = line.partition("\t")
        name, _, why = rest.partition("\t")
        for one, other in ((registry, "quay.io"), (work, "DIR"), (registry.replace(":", "%3A"), "quay.io")):
            name = name.replace(one, other)
        name = re.sub(r"(until|since)=\d{10}", r"\1=TIME", name)
        name = re.sub(r"\b[0-9a-f]{64}\b|(?<=container=)[0-9a-f]{12}\b", "ID", name).replace("|", "¦").replace("`", "'")
        seen[name] += 1
        name = name if seen[name] == 1 else f"{name} #{seen[name]}"
        found[file, name] = (word == "passed", why)
    return found


def _clean(daemon: Daemon) -> None:
    for what, remove in (("ps -aq", "rm -f -v"), ("images -q", "rmi -f"), ("volume ls -q", "volume rm"),
                         ("network ls -q -f type=custom", "network rm")):  # fmt: skip
        if names := list(dict.fromkeys(daemon.docker(*what.split()).stdout.split())):
            daemon.docker(*remove.split(), *names, check=False)


def reasons() -> list[tuple[str, str, str, str]]:
    """File, pattern, kind and reason, from the page."""
    text = (ROOT / "docs/conformance.md").read_text()
    return re.findall(r"^\| `([\w-]+\.at)` \| `(.+?)` \| (\w+) \| (.+) \|$", text, re.M)


def tell(found: Found) -> int:
    """Print what came out; 0 where enough holds, and what does not has a reason."""
    known, used = reasons(), set()
    passed = failed = outside = unknown = 0
    for (file, name), (good, why) in found.items():
        rows = [r for r in known if r[0] == file and fnmatchcase(_plain(name), _plain(r[1]))]
        if good:
            passed += 1
            continue
        used |= set(rows[:1])
        if rows and rows[0][2] != "ours":
            outside += 1
            continue
        failed += 1
        if not rows:
            unknown += 1
            print(f"no reason in docs/conformance.md: {file}: {name}: {why}")
    share = 100 * passed // max(1, passed + failed)
    for row in known:
        if row not in used:
            print(f"a reason for what holds: {row[0]}: {row[1]}")
    print(f"{passed} of {passed + failed} assertions hold: {share} %; {outside} are left out with a reason")
    return 1 if unknown or share < LEAST or not found else 0


def _plain(text: str) -> str:
    """Brackets are no sets of characters."""
    return text.replace("[", "(").replace("]", ")")
