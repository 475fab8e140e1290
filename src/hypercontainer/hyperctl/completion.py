# SPDX-License-Identifier: Apache-2.0
"""completion."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script.

    For bash: hyperctl completion bash > /etc/bash_completion.d/hyperctl
    """
    from .cli import cli

    kind = get_completion_class(shell)
    assert kind is not None
    print(kind(cli, {}, "hyperctl", "_HYPERCTL_COMPLETE").source())
