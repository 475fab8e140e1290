# SPDX-License-Identifier: Apache-2.0
"""`docker system df`: what takes space on this host's disk."""

from __future__ import annotations

from typing import Any

from ..errors import InvalidArgument
from ..model.usage import DiskUsage
from . import container_view
from .image_view import summary
from .router import Call, Routes
from .volumes import view

routes = Routes()
_TYPES = ("container", "image", "volume", "build-cache")


@routes.get("/system/df")
async def disk_usage(c: Call) -> dict[str, Any]:
    """All of it, or only things of some types."""
    wanted = c.request.query.getall("type", []) or _TYPES
    for kind in wanted:
        if kind not in _TYPES:
            raise InvalidArgument(f"unknown object type: {kind}")
    used = await c.engine.usage.measure()
    return {
        "LayersSize": used.layers_size if "image" in wanted else 0,
        "Images": _images(c, used) if "image" in wanted else None,
        "Containers": _containers(c, used) if "container" in wanted else None,
        "Volumes": [view(v, usage=True) for v in used.volumes] if "volume" in wanted else None,
        "BuildCache": await c.engine.builds.cache.records() if "build-cache" in wanted else None,
        **({"BuilderSize": 0} if c.version < (1, 42) else {}),
    }


def _images(c: Call, used: DiskUsage) -> list[Any]:
    return [
        summary(i.image, c.version, shared=i.shared_size, containers=i.containers, size=i.size) for i in used.images
    ]


def _containers(c: Call, used: DiskUsage) -> list[Any]:
    sizes = {i.image.id: i.size for i in used.images}
    found = []
    for own in used.containers:
        if c.engine.registry.exists(own.id):
            container = c.engine.registry.container(own.id)
            root = {"SizeRw": own.size, "SizeRootFs": own.size + sizes.get(container.image_id, 0)}
            found.append(container_view.summary(c.engine, container) | root)
    return found
