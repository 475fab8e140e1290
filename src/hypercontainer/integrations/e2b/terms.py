# SPDX-License-Identifier: Apache-2.0
"""What a sandbox was asked for with, kept in a label of it; and how it is told of to clients."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import time
from typing import Any

import msgspec

from ...client.sources import is_place
from ...errors import InvalidArgument, Unsupported
from ...model.lifetimes import TtlAction
from ...model.states import STILL
from ...model.status import Container
from .network import Reach, read_network

LABEL = "io.hypercontainer.e2b"
ENVD = "0.5.7"  # the version of E2B's own program in a sandbox whose services these are
TIMEOUT = 300  # seconds, which their SDK says is the default
_TIMEOUT_MAX = 366 * 86400
_YEAR_1, _YEAR_9999 = -62135596800, 253402300799  # seconds since the epoch
_SNAPSHOT_ID = 32  # characters at least, all of them hexadecimal
_BASE = "base"  # their default template: here the default image


class Terms(msgspec.Struct, frozen=True, rename="camel"):
    """Of a sandbox."""

    template: str
    timeout: int = TIMEOUT  # seconds
    kill: bool = False  # when its time is over; else it is paused
    resume: bool = False  # a paused one goes on when it is asked for something
    metadata: dict[str, str] = {}

    @property
    def action(self) -> TtlAction:
        """What hyperd is to do when its time is over."""
        return "stop" if self.kill else "suspend"

    def label(self) -> str:
        """For the sandbox."""
        return msgspec.json.encode(self).decode()


class Wanted(msgspec.Struct, frozen=True):
    """A new sandbox, as it is asked for."""

    terms: Terms
    env: dict[str, str]
    reach: Reach


def read_terms(labels: dict[str, str]) -> Terms | None:
    """Those of a sandbox; None where it is not one of ours."""
    try:
        return msgspec.json.decode(labels.get(LABEL, ""), type=Terms)
    except msgspec.MsgspecError:
        return None


def read_wanted(body: dict[str, Any]) -> Wanted:
    """:raise InvalidArgument: it is not understood. :raise Unsupported: it asks for what there is not here."""
    for name in ("iam", "mcp"):
        if body.get(name):
            raise Unsupported(f"sandboxes have no `{name}` here")
    template = body.get("templateID")
    if not isinstance(template, str) or not template:
        raise InvalidArgument("no template is named")
    if is_place(template):
        raise InvalidArgument(f"{template} is no image's name", hint="clients name no places of the server's host")
    terms = Terms(
        template=template, timeout=read_timeout(body), kill=body.get("autoPause") is False,
        resume=_flag(body, "autoResume"), metadata=_texts(body, "metadata"),
    )  # fmt: skip
    reach = Reach("none") if body.get("allow_internet_access") is False else read_network(body.get("network"))
    return Wanted(terms, _texts(body, "envVars"), reach)


def read_timeout(body: dict[str, Any], default: int = TIMEOUT) -> int:
    """Seconds. :raise InvalidArgument: it is no time."""
    found = body.get("timeout", default)
    if not isinstance(found, int) or not 0 <= found <= _TIMEOUT_MAX:
        raise InvalidArgument(f"a timeout is a number of seconds up to {_TIMEOUT_MAX}")
    return found


def _flag(body: dict[str, Any], name: str) -> bool:
    found = body.get(name) or {}
    if not isinstance(found, dict):
        raise InvalidArgument(f"`{name}` is an object")
    return bool(found.get("enabled"))


def _texts(body: dict[str, Any], name: str) -> dict[str, str]:
    try:
        return msgspec.convert(body.get(name) or {}, dict[str, str])
    except msgspec.ValidationError:
        raise InvalidArgument(f"`{name}` is to have texts alone") from None


def is_snapshot(template: str) -> bool:
    """Whether it is the id of one."""
    return len(template) >= _SNAPSHOT_ID and not set(template) - set("0123456789abcdef")


def image_of(template: str, default: str) -> str:
    """An image's name."""
    return default if template == _BASE else template


def access_token(token: str, sandbox: str) -> str:
    """What opens a sandbox to its client, made of the server's token, so that it is the same after a restart."""
    return hmac.new(token.encode(), sandbox.encode(), hashlib.sha256).hexdigest()


def made_view(sandbox: str, terms: Terms, token: str) -> dict[str, Any]:
    """The answer to whoever makes one, or connects to it."""
    return {
        "templateID": terms.template, "sandboxID": sandbox, "clientID": "hyperd", "envdVersion": ENVD,
        "envdAccessToken": access_token(token, sandbox), "domain": None,
    }  # fmt: skip


def view(container: Container, terms: Terms, ends_at: datetime.datetime | None, token: str = "") -> dict[str, Any]:
    """What it says of one; with `token`, to whom it is alone."""
    end = ends_at.timestamp() if ends_at else time.time()
    return {
        "templateID": terms.template, "sandboxID": container.id, "clientID": "hyperd", "envdVersion": ENVD,
        "startedAt": container.created_at, "endAt": time_of(end), "metadata": terms.metadata,
        "cpuCount": max(1, int(container.spec.resources.cpus or 1)),
        "memoryMB": (container.spec.resources.memory or 0) >> 20, "diskSizeMB": 0,
        "state": "paused" if container.state.status in STILL else "running",
        "lifecycle": {"autoResume": terms.resume, "onTimeout": "kill" if terms.kill else "pause"},
        "volumeMounts": [{"name": m.source, "path": m.target} for m in container.spec.mounts if m.type == "volume"],
        **({"envdAccessToken": access_token(token, container.id)} if token else {}),
    }  # fmt: skip


def time_of(seconds: float) -> str:
    """RFC 3339; a file may say that it is of any time."""
    seconds = min(max(seconds, _YEAR_1), _YEAR_9999)
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat().replace("+00:00", "Z")
