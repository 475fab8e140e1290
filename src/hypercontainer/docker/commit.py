# SPDX-License-Identifier: Apache-2.0
"""`commit`: an image of a container."""

from __future__ import annotations

from typing import Any

from ..errors import InvalidArgument, NotFound
from ..model.images import CommitRequest
from .router import Call, Routes

routes = Routes()


@routes.post("/commit", status=201)
async def commit(c: Call) -> dict[str, str]:
    """It is paused meanwhile, unless `pause` is false; the body is a configuration that goes over its own."""
    key, repository, tag = c.text("container"), c.text("repo"), c.text("tag")
    if not repository and tag:
        raise InvalidArgument("refusing to create a tag without a name")
    try:
        container = c.engine.registry.container(key)
    except NotFound as error:
        raise NotFound(f"No such container: {key}") from error
    config = await c.body(dict[str, Any], empty={})
    request = CommitRequest(
        reference=f"{repository}:{tag}" if repository and tag else repository,
        author=c.text("author"),
        message=c.text("comment"),
        changes=[line for text in c.request.query.getall("changes", []) for line in text.splitlines() if line.strip()],
        pause=c.flag("pause", default=True),
        config={k: v for k, v in config.items() if v} or None,
    )
    made = await c.engine.commits.commit(container.id, request)
    return {"Id": made.image.id}
