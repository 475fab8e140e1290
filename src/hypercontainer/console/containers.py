# SPDX-License-Identifier: Apache-2.0
"""The list of containers, and the making of one."""

from __future__ import annotations

import shlex

from aiohttp import web

from ..engine.principal import current
from ..errors import HyperError, InvalidArgument
from ..model.ports import parse_publish
from ..model.specs import ContainerSpec, Mount
from .call import Call, Pages

pages = Pages()


@pages.get("/containers", "read", "audit")
async def list_(c: Call) -> web.StreamResponse:
    """All of them, newest first; to who may not see them, what they may see."""
    if "read" not in current().scopes:
        return c.see("audit")
    found = c.engine.listing.containers({}, everything=True)
    return c.page("containers.html", title="Containers", containers=found)


@pages.get("/new", scope="operate")
async def form(c: Call) -> web.StreamResponse:
    """What a container is to be."""
    return c.page("new.html", title="New container", given={}, wrong="", **_choices(c))


@pages.post("/containers")
async def create(c: Call) -> web.StreamResponse:
    """Make it, and start it; what is wrong is said beside what was written."""
    try:
        made = await c.engine.containers.create(spec_of(c), starting=True)
        await c.engine.containers.start(made.id)
    except HyperError as error:
        wrong = f"{error.message}. {(error.hint or '').capitalize()}"
        return c.page("new.html", title="New container", given=c.form, wrong=wrong, **_choices(c))
    return c.see("containers", made.id)


def spec_of(c: Call) -> ContainerSpec:
    """What the form asks for. :raise InvalidArgument: a field that means nothing."""
    form = c.form
    if not form.get("image", "").strip():
        raise InvalidArgument("no image is given", hint="choose one of the list, or pull it first")
    try:
        command = shlex.split(form.get("command", ""))
    except ValueError as error:
        raise InvalidArgument(f"the command cannot be read: {error}") from None
    volume, target = form.get("volume", "").strip(), form.get("target", "").strip()
    if bool(volume) != bool(target):
        raise InvalidArgument("a volume and its path go together", hint="give both, or neither")
    return ContainerSpec(
        image=form["image"].strip(), name=form.get("name", "").strip(), command=command or None,
        size=form.get("size", ""), env=[line for line in form.get("env", "").splitlines() if line.strip()],
        ports=[p for text in form.get("ports", "").split() for p in parse_publish(text)],
        network=form.get("network", ""),
        mounts=[Mount(target=target, type="volume", source=volume)] if volume else [],
        tty="tty" in form, stdin="tty" in form,
    )  # fmt: skip


def _choices(c: Call) -> dict[str, object]:
    return {
        "images": [name for image in c.engine.listing.images() for name in image.repo_tags],
        "sizes": list(c.engine.settings.sizes.values()),
        "networks": [i.network.name for i in c.engine.networks.all()],
    }
