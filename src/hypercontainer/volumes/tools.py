# SPDX-License-Identifier: Apache-2.0
"""Programs that make file systems in files: each sees its files only."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..errors import Unavailable
from ..jail import helpers
from ..jail.jail import Entry
from ..sys import users
from ..sys.files import no_space

# How e2fsprogs lays file systems out on this host; mke2fs.conf(5).
_SETTINGS = Path("/etc/mke2fs.conf")


async def run_tool(program: str, package: str, *args: str | Path) -> str:
    """What it wrote to stderr; it may write to the files that are there among its arguments.

    :raise Unavailable: it is not installed, or fails. :raise NoSpace: the disk is full.
    """
    if not shutil.which(program):
        raise Unavailable(f"{program} is not installed", hint=f"install the package {package}")
    paths = [a for a in args if isinstance(a, Path)]
    own = users.pick_for_conversion()[0]
    with _lent(paths, helpers.user(own)):
        files = tuple(Entry(p, writable=True) for p in paths)
        settings = (Entry(_SETTINGS),) if _SETTINGS.exists() else ()
        order = helpers.order(helpers.find(program), *args, files=(*files, *settings), own_user=own)
        done = await helpers.run(order)
    if done.status:
        if "No space left" in done.stderr:
            raise no_space(paths[-1])
        raise Unavailable(f"{program} failed: {done.stderr.strip()}")
    return done.stderr


@contextlib.contextmanager
def _lent(paths: list[Path], user: int) -> Iterator[None]:
    """Give files to a user, and take them back."""
    own = os.geteuid()
    if own or user == own:
        yield
        return
    try:
        for path in paths:
            os.chown(path, user, -1)
        yield
    finally:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                os.chown(path, own, -1)
