# SPDX-License-Identifier: Apache-2.0
"""Write docs/man anew from the commands' own help. Usage: python scripts/make_man.py [DIRECTORY]"""

from __future__ import annotations

import sys
from pathlib import Path

import click
from click_man.core import write_man_pages

from hypercontainer import __version__
from hypercontainer.hyperctl.cli import cli
from hypercontainer.hyperd.main import main as hyperd

DATE = "2026-11-21"  # of the release; a page changes only with its command


def write(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for page in directory.glob("*.1"):
        page.unlink()
    context = click.Context(cli)
    for verb in cli.list_commands(context):  # they are imported when they are used
        command = cli.get_command(context, verb)
        assert command is not None
        cli.add_command(command, verb)
    write_man_pages("hyperctl", cli, version=__version__, target_dir=str(directory), date=DATE)
    write_man_pages("hyperd", hyperd, version=__version__, target_dir=str(directory), date=DATE)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs/man")
