# SPDX-License-Identifier: Apache-2.0
"""What the builder may ask for: secrets, agents of SSH, credentials of registries. The builder keeps none."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable
from pathlib import Path

from ...client.sources import Login, credentials
from ...errors import InvalidArgument, NotFound
from ...model.protobuf import decoded, encoded, raw, text
from ..buildoutput import attributes
from .grpc import NOT_FOUND, Call, CallError, CallGone, Handler

_SECRET_MAX = 500 << 10  # bytes; Docker's own limit
_CHUNK = 32 << 10  # bytes
_HUB = "registry-1.docker.io"


def secret_values(given: Iterable[str]) -> dict[str, bytes]:
    """The secrets of `--secret id=NAME[,src=PATH|,env=VARIABLE]` by their names.

    :raise InvalidArgument: one is malformed or too large. :raise NotFound: it is not there.
    """
    found = {}
    for option in given:
        fields = attributes("--secret", option)
        name, kind = fields.get("id", ""), fields.get("type", "")
        if not name:
            raise InvalidArgument(f"--secret {option} has no id", hint="id=NAME,src=PATH or id=NAME,env=VARIABLE")
        if kind not in ("", "file", "env"):
            raise InvalidArgument(f"--secret {option}: the type is neither file nor env")
        path = fields.get("src") or fields.get("source") or ""
        variable = fields.get("env") or (path or name if kind == "env" else "")
        if not path and not variable and kind != "file" and name in os.environ:
            variable = name
        value = _of_variable(variable) if variable else _of_file(Path(path or name))
        if len(value) > _SECRET_MAX:
            raise InvalidArgument(f"the secret {name} is larger than {_SECRET_MAX >> 10} KiB")
        found[name] = value
    return found


def _of_variable(name: str) -> bytes:
    if name not in os.environ:
        raise NotFound(f"there is no environment variable {name} for a secret")
    return os.environb[name.encode()]


def _of_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFound(f"cannot read the secret {path}: {error.strerror}") from error


def agents(given: Iterable[str]) -> dict[str, str]:
    """The sockets of `--ssh default|NAME[=SOCKET]` by their names.

    :raise InvalidArgument: it is no agent's socket. :raise NotFound: no agent runs.
    """
    found = {}
    for option in given:
        name, _, path = option.partition("=")
        path = path or os.environ.get("SSH_AUTH_SOCK", "")
        if not path:
            raise NotFound("no agent of SSH runs here", hint="start one (ssh-agent), and set SSH_AUTH_SOCK")
        if not Path(path).is_socket():
            raise InvalidArgument(f"--ssh {option}: {path} is no agent's socket", hint="give a key to one: ssh-add")
        found[name or "default"] = path
    return found


def services(secrets: dict[str, bytes], sockets: dict[str, str]) -> dict[str, Handler]:
    """Handlers by path."""

    def secret(call: Call) -> None:
        name = _asked(call)
        if name not in secrets:
            raise CallError(NOT_FOUND, f"there is no secret {name}: not found")
        call.send(encoded({1: secrets[name]}))

    def check_agent(call: Call) -> None:
        _agent(_asked(call), sockets)
        call.send(b"")

    def forward_agent(call: Call) -> None:
        _forward(call, _agent(dict(call.metadata).get("buildkit.ssh.id", ""), sockets))

    return {
        "/grpc.health.v1.Health/Check": lambda call: call.send(encoded({1: 1})),
        "/moby.filesync.v1.Auth/Credentials": _credentials,
        **({"/moby.buildkit.secrets.v1.Secrets/GetSecret": secret} if secrets else {}),
        **({"/moby.sshforward.v1.SSH/CheckAgent": check_agent,
            "/moby.sshforward.v1.SSH/ForwardAgent": forward_agent} if sockets else {}),
    }  # fmt: skip


def _asked(call: Call) -> str:
    """The first field of the one message."""
    return text(decoded(next(call.messages(), b"")), 1)


def _credentials(call: Call) -> None:
    host = _asked(call)
    login = credentials("docker.io" if host == _HUB else host) or Login()
    # BuildKit takes the secret of nobody for an identity token.
    user, secret = ("", login.identity_token) if login.identity_token else (login.username, login.password)
    call.send(encoded({1: user, 2: secret}))


def _agent(name: str, sockets: dict[str, str]) -> str:
    if (name or "default") not in sockets:
        raise CallError(NOT_FOUND, f"there is no agent {name or 'default'} for --mount=type=ssh: unset")
    return sockets[name or "default"]


def _forward(call: Call, path: str) -> None:
    """A connection to the agent, as long as both sides want it."""
    with socket.socket(socket.AF_UNIX) as agent:
        agent.connect(path)

        def back() -> None:
            try:
                while data := agent.recv(_CHUNK):
                    call.send(encoded({1: data}))
            except (OSError, CallGone):
                return

        answering = threading.Thread(target=back, daemon=True)
        answering.start()
        try:
            for message in call.messages():
                agent.sendall(raw(decoded(message), 1))
        finally:
            agent.shutdown(socket.SHUT_WR)
            answering.join()
