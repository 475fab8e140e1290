# SPDX-License-Identifier: Apache-2.0
"""What a Python of its own needs to run a module of ours: files, and the environment that names their places."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from .jail import Entry

_PACKAGES = Path(__file__).parents[2]  # where this package lies
_OTHERS = ("zstandard", "isal", "h11")  # which workers import


def binary() -> Path:
    """The interpreter itself: its name in a virtual environment is a link, and says no more than `environment`."""
    return Path(sys.executable).resolve()


def environment() -> dict[str, str]:
    """Where the standard library and the packages are."""
    return {"PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}", "PYTHONPATH": ":".join(map(str, _places()))}


@functools.cache
def files() -> tuple[Entry, ...]:
    """Directories of modules, and the libraries that their extensions load."""
    standard = (Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
    places = tuple(dict.fromkeys((*standard, *_places())))
    outer = [p for p in places if not any(p != q and p.is_relative_to(q) for q in places)]
    return tuple(Entry(p) for p in (*outer, *(x for x in _libraries() if not any(x.is_relative_to(p) for p in outer))))


def reachable() -> bool:
    """Whether this user may read all of them by the files' modes: in a namespace of users nothing else counts."""
    found = (binary(), *(entry.source for entry in files()))
    return all(_opens(path) for path in {p for source in found for p in (source, *source.parents)})


def _opens(path: Path) -> bool:
    about = path.stat()
    wanted = 0o5 if path.is_dir() else 0o4
    if about.st_uid == os.geteuid():
        return about.st_mode >> 6 & wanted == wanted
    return about.st_mode & wanted == wanted


def _places() -> tuple[Path, ...]:
    """Directories of this package, and of others that it needs, in the order in which they are looked through."""
    found = [Path(p) for p in sys.path if any((Path(p) / name).is_dir() for name in _OTHERS)]
    return tuple(dict.fromkeys(p for p in (_PACKAGES, *found) if p.is_absolute()))


def _libraries() -> Iterator[Path]:
    """Those that are loaded here, as the worker's modules are; by all their names, as the loader looks for sonames."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    for path in dict.fromkeys(Path(line.split(maxsplit=5)[5]) for line in lines if ".so" in line):
        if path.exists():
            names = path.parent.glob(f"{path.name.partition('.so')[0]}.so*")
            yield from (name for name in names if name.resolve() == path)
