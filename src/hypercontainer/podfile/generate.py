# SPDX-License-Identifier: Apache-2.0
"""A podfile to begin with, from the names of images."""

from __future__ import annotations

import json
from typing import Any

from ..model.reference import short_name


def generate(images: list[str], *, name: str, publish: list[dict[str, Any]], as_json: bool) -> str:
    """One container per image, with names that differ."""
    names: list[str] = []
    for image in images:
        base = short_name(image)
        names.append(base if base not in names else f"{base}-{len(names)}")
    podfile: dict[str, Any] = {
        "id": name,
        "restartPolicy": "onFailure",
        "containers": [{"name": f"{name}-{n}", "image": i} for n, i in zip(names, images, strict=True)],
    }
    if publish:
        podfile["portmappings"] = publish
    if as_json:
        return json.dumps(podfile, indent=2) + "\n"
    import yaml

    head = "# Fields: docs/podfile.md; JSON Schema: `hyperctl pod schema`\n"
    return head + str(yaml.safe_dump(podfile, sort_keys=False))
