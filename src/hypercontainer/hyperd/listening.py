# SPDX-License-Identifier: Apache-2.0
"""The sockets that are served: a unix socket for each API, and TCP with TLS 1.3 where it is configured."""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import ssl
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from ..errors import Conflict, HyperError, InvalidArgument, PermissionDenied
from .config import Config
from .server_tls import server_context

_GROUP = "hyper"  # its members may use root's daemon, where there is such a group and no other is named


Speaks = Literal["rest", "docker", "console"]  # our API, Docker's Engine API, pages for browsers
_CERTIFICATES: dict[Speaks, ssl.VerifyMode] = {  # of clients
    "rest": ssl.CERT_OPTIONAL, "docker": ssl.CERT_REQUIRED, "console": ssl.CERT_NONE,
}  # fmt: skip


class Listening(NamedTuple):
    """A socket that is bound, and what it speaks."""

    sock: socket.socket
    tls: ssl.SSLContext | None
    name: str  # for people
    speaks: Speaks = "rest"


@contextlib.contextmanager
def listening(config: Config) -> Iterator[list[Listening]]:
    """All of them.

    :raise Conflict: another listens there. :raise PermissionDenied: we may not. :raise InvalidArgument: a
    certificate, a key or an address that is none.
    """
    with contextlib.ExitStack() as stack:
        wanted: dict[Speaks, list[str]] = {
            "rest": config.listen, "docker": config.docker_listen, "console": config.console_listen,
        }  # fmt: skip
        if config.docker_listen and not config.docker:
            raise InvalidArgument("--docker-listen, and Docker's clients are not served", hint="leave --no-docker away")
        paths: dict[Speaks, Path] = {"rest": config.socket_path}
        if config.docker:
            paths["docker"] = config.docker_path
        contexts = {speaks: _context(config, speaks, urls) for speaks, urls in wanted.items() if urls}
        found = []
        if config.cri:
            # gRPC binds it, when the engine is there; that it cannot be is told now.
            _unix(config.cri_path, config, "--cri-socket").close()
            config.cri_path.unlink()
            streaming_socket(config.cri_streaming).close()
        for speaks, path in paths.items():
            sock = _unix(path, config, "--docker-socket" if speaks == "docker" else "--socket")
            found.append(Listening(stack.enter_context(sock), None, str(path), speaks))
            stack.callback(path.unlink, missing_ok=True)
        for speaks, url in ((s, url) for s, urls in wanted.items() for url in urls):
            sock = stack.enter_context(_tcp(url))
            host, port = sock.getsockname()[:2]
            scheme = {"console": "https" if contexts[speaks] else "http"}.get(speaks, "tcp")
            name = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
            found.append(Listening(sock, contexts[speaks], name, speaks))
        yield found


def _context(config: Config, speaks: Speaks, urls: Iterable[str]) -> ssl.SSLContext | None:
    """None for a console of this host's own, where no certificate is given.

    :raise InvalidArgument: TLS is needed, and has no certificate.
    """
    if speaks == "console" and not config.tlscert and all(is_local(address_of(url)[0]) for url in urls):
        return None
    return server_context(config, _CERTIFICATES[speaks])


def is_local(host: str) -> bool:
    """Whether only this host reaches it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unix(path: Path, config: Config, option: str) -> socket.socket:
    """A dead one of an earlier daemon is replaced; `option` says where it is.

    :raise Conflict: when a daemon answers there. :raise PermissionDenied: it cannot be made.
    """
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.connect(str(path))
        raise Conflict(f"another hyperd listens on {path}", hint=f"stop it, or choose another {option}")
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(str(path))  # with umask 077: it is for us alone until it has its group
        give(path, config)
    except OSError as error:
        sock.close()
        raise PermissionDenied(f"cannot listen on {path}: {error.strerror}") from error
    except HyperError:
        sock.close()
        path.unlink()
        raise
    return sock


def give(path: Path, config: Config) -> None:
    """To the group that was named; root's to the group hyper, if there is one."""
    group = None
    if config.group or os.geteuid() == 0:
        try:
            group = grp.getgrnam(config.group or _GROUP).gr_gid
        except KeyError:
            if config.group:
                raise InvalidArgument(
                    f"there is no group {config.group!r}", hint=f"make it with `groupadd {config.group}`"
                ) from None
    if group is not None:
        os.chown(path, -1, group)
    os.chmod(path, config.socket_bits)
    run = config.run_path
    if group is not None and os.geteuid() == 0 and path.parent == run and not run.stat().st_mode & 0o001:
        os.chown(run, -1, group)  # the way to it, and no more
        run.chmod(0o710)


def _tcp(url: str) -> socket.socket:
    """:raise InvalidArgument: no such address. :raise Conflict: the port is taken."""
    host, port = address_of(url)
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = infos[0]
        sock = socket.create_server(address[:2], family=family, reuse_port=False)
    except OSError as error:
        raise Conflict(f"cannot listen on {url}: {error.strerror or error}") from error
    return sock


def streaming_socket(url: str) -> socket.socket:
    """For CRI's streams, which have no TLS. :raise InvalidArgument: others than this host could reach it."""
    host, _ = address_of(url)
    if not is_local(host):
        raise InvalidArgument(
            f"cri_streaming {url!r} is not this host's own", hint="write tcp://127.0.0.1:PORT: kubelets proxy it"
        )
    return _tcp(url)


def address_of(url: str) -> tuple[str, int]:
    """:raise InvalidArgument: it is no tcp://ADDRESS:PORT."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if (
        not host
        or port is None
        or parts.scheme != "tcp"
        or parts.path not in ("", "/")
        or parts.query
        or parts.username
    ):
        raise InvalidArgument(f"invalid address {url!r}", hint="write it as tcp://ADDRESS:PORT")
    return host, port
