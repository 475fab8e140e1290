# SPDX-License-Identifier: Apache-2.0
"""sandbox: what the SDK and its like have made, whose it is, and until when it is there."""

from __future__ import annotations

import click
import msgspec

from ..client.api import Query
from ..model.filters import encode_filters
from ..model.ids import short
from ..model.status import Container, PodInfo
from ..model.units import format_age, format_span, format_until
from ..sdk.spec import LABEL
from .container_view import describe_state
from .context import client
from .output import show


class SandboxView(msgspec.Struct, frozen=True, rename="camel"):
    """One of them, for templates and JSON."""

    id: str
    name: str
    image: str
    made_by: str  # sdk, e2b, mcp, smolagents, ...
    owner: str  # the principal; "" is the daemon
    state: str
    created_at: str
    ends_at: str  # "" of one that has no ttl
    ttl: float  # seconds, 0: it has none
    idle_timeout: float  # seconds, 0: it has none


@click.group()
def sandbox() -> None:
    """What the SDK, E2B's clients, language models and agents have made."""


@sandbox.command(name="ls")
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.option("--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
def list_(quiet: bool, format_: str) -> None:
    """List sandboxes, newest first; also those that were kept when they ended."""
    c = client()
    query: Query = {"all": True, "filters": encode_filters({"label": [LABEL]})}
    # The filter is Docker's, which takes an image's labels for its containers'.
    found = [x for x in c.call(list[Container], "GET", "/containers", query) if LABEL in x.spec.labels]
    if quiet and not format_:
        for each in found:
            print(short(each.id))
        return
    ends = {pod.id: pod.ends_at for pod in c.call(list[PodInfo], "GET", "/pods")}
    show(
        found,
        format_,
        ["SANDBOX ID", "NAME", "IMAGE", "MADE BY", "OWNER", "CREATED", "STATUS", "ENDS IN", "IDLE TIMEOUT"],
        lambda x: [
            short(x.id), x.name, x.image, x.spec.labels[LABEL], x.owner, f"{format_age(x.created_at)} ago",
            describe_state(x), format_until(ends.get(x.pod, "")),
            format_span(x.spec.idle_timeout) if x.spec.idle_timeout else "",
        ],
        lambda x: SandboxView(
            x.id, x.name, x.image, x.spec.labels[LABEL], x.owner, x.state.status.value, x.created_at,
            ends.get(x.pod, ""), x.spec.ttl, x.spec.idle_timeout,
        ),
    )  # fmt: skip


sandbox.add_command(list_, "list")
