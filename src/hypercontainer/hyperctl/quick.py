# SPDX-License-Identifier: Apache-2.0
"""The quick way of `run`, `exec`, `pod fork` and `version`: the same requests as their commands make, without click.

A container from the pool starts in less time than the imports of the command
line take. So the commonest flags are read here, the request is sent, and what
attaches is imported while the daemon works. Whatever is not understood, and
every mistake, is left to the commands: `quick` returns None then, and nothing
has happened. `tests/unit/test_quick.py` compares both ways.
"""

from __future__ import annotations

import sys
import time

from ..client.base import default_socket, pod_route, raise_error, target
from ..client.transport import Connection, Response
from ..errors import InvalidArgument, Unavailable
from .environment import resolve
from .standard import print_made, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_RUN = {
    "--rm": "rm",
    "-d": "detach",
    "--detach": "detach",
    "-i": "interactive",
    "--interactive": "interactive",
    "-t": "tty",
    "--tty": "tty",
    "--privileged": "privileged",
    "--read-only": "read_only",
    "--init": "init",
    "-q": "quiet",
    "--quiet": "quiet",
}
_RUN_VALUES = {
    "--name": "name",
    "-e": "env",
    "--env": "env",
    "-w": "workdir",
    "--workdir": "workdir",
    "-u": "user",
    "--user": "user",
    "-h": "hostname",
    "--hostname": "hostname",
    "-p": "publish",
    "--publish": "publish",
    "-v": "volume",
    "--volume": "volume",
    "--network": "network",
    "--net": "network",
    "--driver": "driver",
    "--isolation": "isolation",
    "--trace": "trace",
}
_PLAIN = ("name", "workdir", "user", "hostname", "driver", "isolation")  # the same in the specification
_EXEC = {k: v for k, v in _RUN.items() if v in ("detach", "interactive", "tty", "privileged")}
_EXEC_VALUES = {k: v for k, v in _RUN_VALUES.items() if v in ("env", "workdir", "user")}
_FORK_VALUES = {"-n": "count", "--count": "count", "--name": "name"}


# Global options with a value, for the commands.
_OTHERS = ("--tlscacert", "--tlscert", "--tlskey", "--token-file", "--context", "--project")


class _Unknown(Exception):
    """Not for the quick way."""


def split(args: list[str]) -> tuple[str, str, list[str]]:
    """The daemon's socket, the verb, and what follows it."""
    return split_all(args)[1:]


def split_all(args: list[str]) -> tuple[str, str, str, list[str]]:
    """The context before them."""
    context, host, at = "", "", 0
    while at < len(args) and args[at].startswith("-"):
        if args[at] in ("-H", "--host"):
            host = args[at + 1] if at + 1 < len(args) else ""
            at += 1
        elif args[at].startswith("--host="):
            host = args[at].removeprefix("--host=")
        elif args[at] in _OTHERS:
            at += 1
            if args[at - 1] == "--context":
                context = args[at] if at < len(args) else ""
        elif args[at].partition("=")[0] in _OTHERS:
            if args[at].startswith("--context="):
                context = args[at].removeprefix("--context=")
        else:
            return "", "", "", []
        at += 1
    at += args[at : at + 1] == ["container"] and at + 1 < len(args)  # Docker's group: the verb follows
    return context, host, *((args[at], args[at + 1 :]) if at < len(args) else ("", []))


def scan(args: list[str], flags: dict[str, str], values: dict[str, str]) -> tuple[dict[str, list[str]], list[str]]:
    """Flags up to the first word that is none, and the words from there."""
    found: dict[str, list[str]] = {}
    at = 0
    while at < len(args) and args[at].startswith("-"):
        word, at = args[at], at + 1
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if word.startswith("--") and name in values:
            if not equals:
                if at >= len(args):
                    raise _Unknown
                value, at = args[at], at + 1
            found.setdefault(values[name], []).append(value)
        elif word.startswith("--") and word in flags:
            found[flags[word]] = [""]
        elif len(word) > 1 and not word.startswith("--") and all(f"-{c}" in flags for c in word[1:]):
            found.update({flags[f"-{c}"]: [""] for c in word[1:]})
        elif word in values and at < len(args):
            found.setdefault(values[word], []).append(args[at])
            at += 1
        else:
            raise _Unknown
    return found, args[at:]


def _environment(entries: list[str]) -> list[str]:
    try:
        return resolve(entries)
    except InvalidArgument:
        raise _Unknown from None


def _port(text: str) -> dict[str, Any]:
    host, _, container = text.rpartition(":")
    if not (host.isascii() and host.isdecimal() and container.isascii() and container.isdecimal()):
        raise _Unknown
    if not (0 < int(host) < 65536 and 0 < int(container) < 65536):
        raise _Unknown
    return {"containerPort": int(container), "hostPort": int(host)}


def _volume(text: str) -> dict[str, Any]:
    """A named volume; the rest needs more thought."""
    name, _, path = text.partition(":")
    if (
        not name[:1].isalnum()
        or ":" in path
        or not path.startswith("/")
        or "//" in path
        or "/." in path
        or path.endswith("/")
    ):
        raise _Unknown
    return {"target": path, "source": name}


def _network(names: list[str]) -> dict[str, Any]:
    if len(names) > 1:
        raise _Unknown
    if not names or names[0] == "none" or names[0].partition(":")[0] in ("user", "cni"):
        return {"network": names[0]} if names else {}
    return {"networks": [{"name": names[0]}]}


def run_body(args: list[str]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The specification of `run`, and the flags."""
    found, words = scan(args, _RUN, _RUN_VALUES)
    if words and words[0].partition(":")[0] in ("aci", "docker-archive", "oci", "oci-archive", "docker-daemon"):
        raise _Unknown  # taken from there first
    if not words or found.get("isolation", ["fresh"])[-1] not in ("default", "fresh"):
        raise _Unknown
    body: dict[str, Any] = {"image": words[0], **_network(found.get("network", []))}
    body |= {name: found[name][-1] for name in _PLAIN if name in found}
    same = {
        "tty": "tty",
        "interactive": "stdin",
        "privileged": "privileged",
        "read_only": "readOnly",
        "init": "runInit",
        "rm": "autoRemove",
    }
    body |= {field: True for flag, field in same.items() if flag in found}
    if words[1:]:
        body["command"] = words[1:]
    if "env" in found:
        body["env"] = _environment(found["env"])
    if "publish" in found:
        body["ports"] = [_port(p) for p in found["publish"]]
    if "volume" in found:
        body["mounts"] = [_volume(v) for v in found["volume"]]
    return body, found


def exec_body(args: list[str]) -> tuple[str, dict[str, Any], dict[str, list[str]]]:
    """The container, the specification of `exec`, and the flags."""
    found, words = scan(args, _EXEC, _EXEC_VALUES)
    if len(words) < 2 or "detach" in found:
        raise _Unknown
    body: dict[str, Any] = {"command": words[1:]} | {
        name: found[name][-1] for name in ("workdir", "user") if name in found
    }
    body |= {
        field: True
        for flag, field in {"tty": "tty", "interactive": "stdin", "privileged": "privileged"}.items()
        if flag in found
    }
    if "env" in found:
        body["env"] = _environment(found["env"])
    return words[0], body, found


def fork_body(args: list[str]) -> tuple[str, dict[str, Any]]:
    """The pod, and what is asked for."""
    found, words = scan(args, {}, _FORK_VALUES)
    count = found.get("count", ["1"])[-1]
    if len(words) != 1 or not (count.isascii() and count.isdecimal()) or not 0 < int(count) <= 100:
        raise _Unknown
    return words[0], {"count": int(count), "name": found.get("name", [""])[-1]}


def _json(value: object) -> str:
    """`json` imports regular expressions; the writer's half of it is this short."""
    from _json import encode_basestring_ascii

    if isinstance(value, str):
        value.encode()  # what is no text is refused here; the escapes below would hide it
        return encode_basestring_ascii(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_json(k)}:{_json(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_json, value)) + "]"
    return str(value)


def _send(path: str, route: str, query: dict[str, str], body: dict[str, Any], *, upgrade: bool) -> Connection:
    try:
        connection = Connection(path)
    except Unavailable:  # a daemon may have to be started
        raise _Unknown from None
    headers = {"Content-Type": "application/json"} | ({"Connection": "Upgrade", "Upgrade": "tcp"} if upgrade else {})
    connection.send("POST", target(route, query), headers, _json(body).encode())
    return connection


def _answer(connection: Connection) -> Response:
    """:raise HyperError: what the daemon says went wrong."""
    response = connection.response()
    if response.status == 404:  # an image may have to be pulled, a pod may be meant
        raise _Unknown
    if response.status >= 400:
        raise_error(response.read(), response.status)
    warn(response.headers.get("hyper-warning", ""))
    return response


def _window(found: dict[str, list[str]]) -> dict[str, str]:
    if "tty" not in found:
        return {}
    if "interactive" in found and not sys.stdin.isatty():
        raise _Unknown
    from ..client.stream import window_size

    rows, columns = window_size()
    return {"rows": str(rows), "columns": str(columns)} if rows else {}


def _run(path: str, args: list[str]) -> int:
    body, found = run_body(args)
    if "trace" in found and ("detach" in found or not found["trace"][-1].endswith((".svg", ".json", "-"))):
        raise _Unknown
    if "detach" in found:
        response = _send(path, "/containers", {"start": "1"}, body, upgrade=False).response()
        if id_ := response.headers.get("hyper-id"):  # there is one, even if it could not be started
            print_made(id_, "the container")
        elif response.status == 404:
            raise _Unknown
        answer = response.read()
        warn(response.headers.get("hyper-warning", ""))
        if response.status >= 400:
            raise_error(answer, response.status)
        return 0
    return _attach(path, "/containers", "/containers", body, found)


def _exec(path: str, args: list[str]) -> int:
    container, body, found = exec_body(args)
    if not container.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise _Unknown
    return _attach(path, f"/containers/{container}/exec", "/execs", body, found)


def _attach(path: str, route: str, objects: str, body: dict[str, Any], found: dict[str, list[str]]) -> int:
    query = {"start": "1", **({"trace": "1"} if "trace" in found else {}), **_window(found)}
    sent = time.time_ns()
    with _send(path, route, query, body, upgrade=True) as connection:
        from .stream import stream_of  # takes as long as a start

        response = _answer(connection)
        terminal = "tty" in found and "interactive" in found
        route = f"{objects}/{response.headers['hyper-id']}"
        stream = stream_of(connection, path, route, stdin="interactive" in found, terminal=terminal)
        status = stream.run()
    if "trace" in found:
        from .trace import write

        write(found["trace"][-1], sent, stream.trace)
    return status


def _pod(path: str, args: list[str]) -> int:
    if args[:1] != ["fork"]:
        raise _Unknown
    pod, body = fork_body(args[1:])
    connection = _send(path, pod_route(pod, "/fork"), {}, body, upgrade=False)
    import json  # takes as long as a part of that

    for made in json.loads(_answer(connection).read()):
        print_made(made["pod"]["id"], "the pod")
    return 0


def _version(path: str, args: list[str]) -> int:
    if args:
        raise _Unknown
    import json
    import platform

    from .. import API_VERSION, __version__

    try:
        connection = Connection(path)
    except Unavailable:
        raise _Unknown from None
    connection.send("GET", target("/version", {}), {}, b"")
    server = json.loads(_answer(connection).read())
    mine = {"version": __version__, "apiVersion": API_VERSION, "python": platform.python_version()}
    for title, part in (("Client", mine), ("Server", server)):
        print(f"{title}:")
        for key, value in part.items():
            print(f"  {key + ':':<14}{value}")
    return 0


_VERBS = {"run": _run, "exec": _exec, "pod": _pod, "version": _version}


def quick(args: list[str]) -> int | None:
    """The exit status; None when the commands shall do it.

    :raise HyperError: what the daemon says went wrong.
    """
    host, verb, rest = split(args)
    before = args[: len(args) - len(rest)]
    if verb not in _VERBS or "--help" in rest or any(a.partition("=")[0] in _OTHERS for a in before):
        return None
    path = (host or default_socket()).removeprefix("unix://")
    try:
        return _VERBS[verb](path, rest)
    except _Unknown:
        return None
