# SPDX-License-Identifier: Apache-2.0
"""login and logout: Docker's login file, which docker, podman and skopeo read too."""

from __future__ import annotations

import base64
import json
import os
import sys
from typing import Any

import click

from ..client.sources import config_key, docker_config, load_config
from ..errors import InvalidArgument
from .person import log_in, log_out


def _save(config: dict[str, Any]) -> None:
    path = docker_config()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_suffix(".tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as f:
        json.dump(config, f, indent=2)
    temporary.replace(path)


@click.command()
@click.option("-u", "--username", help="User name; asked for when not given.")
@click.option("-p", "--password", help="Password; better given with --password-stdin.")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin.")
@click.option("--oidc", is_flag=True, help="Log in to hyperd instead, by its identity provider.")
@click.option("--file", default="", metavar="FILE", help="Where --oidc keeps hyperd's token [default: the context's].")
@click.argument("registry", default="docker.io")
def login(
    registry: str, username: str | None, password: str | None, password_stdin: bool, oidc: bool, file: str
) -> None:
    """Keep a registry's credentials for pulls; they are tried at the next pull.

    With --oidc it is hyperd that one logs in to: it shows an address and a code, which one enters in a browser.
    """
    if oidc:
        if username or password or password_stdin:
            raise InvalidArgument("--oidc asks for no password: the identity provider does")
        log_in(file)
        return
    if file:
        raise InvalidArgument("--file is for --oidc")
    if password_stdin:
        if not username:
            raise InvalidArgument("--password-stdin needs --username")
        password = sys.stdin.read().rstrip("\r\n")
    username = username or click.prompt("Username")
    password = password or click.prompt("Password", hide_input=True)
    config = load_config()
    encoded = base64.b64encode(f"{username}:{password}".encode()).decode()
    config.setdefault("auths", {})[config_key(registry)] = {"auth": encoded}
    _save(config)
    print(f"Credentials of {registry} kept in {docker_config()}")


@click.command()
@click.option("--oidc", is_flag=True, help="Log out of hyperd instead: the token of `login --oidc` ends.")
@click.argument("registry", default="docker.io")
def logout(registry: str, oidc: bool) -> None:
    """Forget a registry's credentials."""
    if oidc:
        log_out()
        return
    config = load_config()
    if config.get("auths", {}).pop(config_key(registry), None) is None:
        raise InvalidArgument(f"not logged in to {registry}")
    _save(config)
    print(f"Credentials of {registry} removed")
