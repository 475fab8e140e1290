# SPDX-License-Identifier: Apache-2.0
"""Where images come from, as who asks for them knows it: his logins at registries, and his paths."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import HyperError, Unavailable
from ..model.reference import PLACES, parse_reference, parse_source
from ..model.registry_auth import registry_auth

_HUB_KEY = "https://index.docker.io/v1/"
_TOKEN = "<token>"  # in a user name's place: the secret of a helper is an identity token


class Login(NamedTuple):
    """By what a registry knows somebody: a user name and a password, or an identity token."""

    username: str = ""
    password: str = ""
    identity_token: str = ""


def docker_config() -> Path:
    """Docker's login file: shared with docker, skopeo and podman."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


def load_config() -> dict[str, Any]:
    try:
        loaded = json.loads(docker_config().read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Unavailable(f"cannot read {docker_config()}: {error}", hint="mend or remove the file") from error
    return loaded if isinstance(loaded, dict) else {}


def config_key(host: str) -> str:
    return _HUB_KEY if host == "docker.io" else host


def credentials(host: str) -> Login | None:
    """Those for a registry, from the login file or its helper."""
    config, key = load_config(), config_key(host)
    helper = config.get("credHelpers", {}).get(key) or config.get("credsStore")
    if helper:
        try:
            done = subprocess.run(
                [f"docker-credential-{helper}", "get"], input=key, capture_output=True, text=True, check=True
            )
            found = json.loads(done.stdout)
            user, secret = found["Username"], found["Secret"]
            return Login(identity_token=secret) if user == _TOKEN else Login(user, secret)
        except (OSError, subprocess.CalledProcessError, ValueError, KeyError):
            return None
    entry = config.get("auths", {}).get(key, {})
    encoded, token = entry.get("auth", ""), entry.get("identitytoken", "")
    if not encoded and not token:
        return None
    user, _, password = base64.b64decode(encoded).decode(errors="replace").partition(":")
    return Login(user, password, token)


def auth_header(source: str) -> dict[str, str]:
    """X-Registry-Auth as Docker sends it; empty when there is nothing to send."""
    try:
        parsed = parse_source(source)
    except HyperError:
        return {}  # the daemon says what is wrong with it
    login = credentials(parse_reference(parsed.location).host) if parsed.transport == "docker" else None
    if login is None:
        return {}
    auth = registry_auth(login.username, login.password, identity_token=login.identity_token)
    return {"X-Registry-Auth": auth}


def absolute(source: str) -> str:
    """A source with its path made absolute: the daemon works elsewhere."""
    parsed = parse_source(source)
    if parsed.transport in ("docker-archive", "oci", "oci-archive"):
        path, colon, rest = parsed.location.partition(":")
        return f"{parsed.transport}:{Path(path).absolute()}{colon}{rest}"
    return source


def is_place(image: str) -> bool:
    """Whether it is an archive or another place to take an image from, rather than a name."""
    return image.partition(":")[0] in PLACES and ":" in image
