# SPDX-License-Identifier: Apache-2.0
"""Changes of an image's configuration by instructions of a Dockerfile, as `import --change` takes them.

What they mean is in https://docs.docker.com/reference/dockerfile; the fields are those of OCI's image configuration,
and Docker's Healthcheck and OnBuild.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import InvalidArgument
from ..model.units import parse_duration

Config = dict[str, Any]
_SHELL = ["/bin/sh", "-c"]
_NANOSECONDS = 10**9
_TIMES = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod"}


def apply_changes(config: Config, changes: Sequence[str]) -> Config:
    """The configuration with all of them, one after the other.

    :raise InvalidArgument: one is no instruction that may be given here.
    """
    found = dict(config)
    for change in changes:
        word, _, rest = change.strip().partition(" ")
        apply = _INSTRUCTIONS.get(word.upper())
        if apply is None or not rest.strip():
            raise InvalidArgument(
                f"invalid change {change!r}", hint=f"write one of {', '.join(_INSTRUCTIONS)} and what it is to be"
            )
        try:
            apply(found, rest.strip())
        except (ValueError, IndexError) as error:
            raise InvalidArgument(f"invalid change {change!r}: {error}") from error
    return found


def _words(text: str) -> list[str] | None:
    """Of the form that is JSON; None for that of the shell."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and all(isinstance(w, str) for w in found) else None


def _command(text: str) -> list[str]:
    words = _words(text)
    return words if words is not None else [*_SHELL, text]


def _pairs(text: str) -> dict[str, str]:
    """`KEY=VALUE ...`, or `KEY VALUE`."""
    if re.match(r"[^\s=\"']+\s", text):
        key, _, value = text.partition(" ")
        return {key: value.strip()}
    found = {}
    for word in shlex.split(text):
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise ValueError(f"{word!r} is not KEY=VALUE")
        found[key] = value
    return found


def _environment(config: Config, text: str) -> None:
    pairs = _pairs(text)
    kept = [e for e in config.get("Env") or [] if e.partition("=")[0] not in pairs]
    config["Env"] = [*kept, *(f"{k}={v}" for k, v in pairs.items())]


def _labels(config: Config, text: str) -> None:
    config["Labels"] = (config.get("Labels") or {}) | _pairs(text)


def _ports(config: Config, text: str) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for word in text.split():
        if not re.fullmatch(r"[0-9]{1,5}(-[0-9]{1,5})?(/(tcp|udp|sctp))?", word):
            raise ValueError(f"{word!r} is no port")
        ports[word if "/" in word else f"{word}/tcp"] = {}
    config["ExposedPorts"] = ports


def _volumes(config: Config, text: str) -> None:
    words = _words(text)
    config["Volumes"] = (config.get("Volumes") or {}) | {v: {} for v in (text.split() if words is None else words)}


def _directory(config: Config, text: str) -> None:
    before = config.get("WorkingDir") or "/"
    config["WorkingDir"] = text if text.startswith("/") else f"{before.rstrip('/')}/{text}"


def _triggers(config: Config, text: str) -> None:
    config["OnBuild"] = [*(config.get("OnBuild") or []), text]


def _health(config: Config, text: str) -> None:
    check: Config = {}
    while option := re.match(r"--([a-z-]+)=(\S+)\s+", text):
        name, text = option[1], text[option.end() :]
        if name == "retries":
            check["Retries"] = int(option[2])
        elif name in _TIMES:
            check[_TIMES[name]] = int(parse_duration(option[2]) * _NANOSECONDS)
        else:
            raise ValueError(f"there is no option --{name}")
    kind, _, command = text.partition(" ")
    if kind.upper() == "NONE":
        check["Test"] = ["NONE"]
    elif kind.upper() == "CMD" and command.strip():
        words = _words(command.strip())
        check["Test"] = ["CMD-SHELL", command.strip()] if words is None else ["CMD", *words]
    else:
        raise ValueError("write CMD and a command, or NONE")
    config["Healthcheck"] = check


def _set(field: str, read: Callable[[str], Any] = str) -> Callable[[Config, str], None]:
    def apply(config: Config, text: str) -> None:
        config[field] = read(text)

    return apply


_INSTRUCTIONS: dict[str, Callable[[Config, str], None]] = {
    "CMD": _set("Cmd", _command),
    "ENTRYPOINT": _set("Entrypoint", _command),
    "ENV": _environment,
    "EXPOSE": _ports,
    "HEALTHCHECK": _health,
    "LABEL": _labels,
    "ONBUILD": _triggers,
    "STOPSIGNAL": _set("StopSignal"),
    "USER": _set("User"),
    "VOLUME": _volumes,
    "WORKDIR": _directory,
}
