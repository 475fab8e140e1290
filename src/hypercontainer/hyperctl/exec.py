# SPDX-License-Identifier: Apache-2.0
"""exec."""

from __future__ import annotations

import click

from ..client.api import container_route
from ..client.base import exec_route
from ..client.stream import require_terminal, window_size
from ..errors import NotFound
from ..model.detach_keys import parse_detach_keys
from ..model.specs import ExecSpec
from ..model.status import ExecInfo
from .context import client
from .dockerflags import detach_keys_option
from .options import environment
from .stream import stream_of


@click.command(name="exec", context_settings={"allow_interspersed_args": False})
@click.option("-i", "--interactive", is_flag=True, help="Keep stdin open.")
@click.option("-t", "--tty", is_flag=True, help="Give the process a terminal.")
@click.option("-d", "--detach", is_flag=True, help="Run in the background.")
@click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set an environment variable.")
@click.option("--env-file", multiple=True, type=click.Path(), help="Read environment variables from a file.")
@click.option("-w", "--workdir", default="", help="Working directory.")
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="User and group.")
@detach_keys_option
@click.option("--privileged", is_flag=True, help="With all capabilities.")
@click.argument("container")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    container: str, command: tuple[str, ...], interactive: bool, tty: bool, detach: bool, env: tuple[str, ...],
    env_file: tuple[str, ...], workdir: str, user: str, privileged: bool, detach_keys: str,
) -> int:  # fmt: skip
    """Run a further command in a running container, or the first one of a pod; the exit status is the command's."""
    if tty and interactive and not detach:
        require_terminal()
    parse_detach_keys(detach_keys)
    c = client()
    spec = ExecSpec(
        command=list(command), env=environment(env, env_file), workdir=workdir, user=user, tty=tty,
        stdin=interactive, privileged=privileged, detach=detach,
    )  # fmt: skip
    try:
        info = c.call(ExecInfo, "POST", container_route(container, "/exec"), body=spec)
    except NotFound:
        from .podrun import container_of

        info = c.call(ExecInfo, "POST", container_route(container_of(c, container).id, "/exec"), body=spec)
    route = exec_route(info.id)
    if detach:
        c.do("POST", f"{route}/start")
        return 0
    rows, columns = window_size() if tty else (0, 0)
    query = {"rows": rows, "columns": columns, "detachKeys": detach_keys or None}
    with c.upgrade(f"{route}/start", query) as connection:
        return stream_of(connection, c.path, route, stdin=interactive, terminal=tty and interactive).run()
