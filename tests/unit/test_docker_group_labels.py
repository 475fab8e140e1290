# SPDX-License-Identifier: Apache-2.0
"""Security groups by Docker's API, which has no field for them."""

from __future__ import annotations

from typing import Any

import pytest

from hypercontainer.docker.container_request import spec_of
from hypercontainer.errors import InvalidArgument


def groups(labels: dict[str, str], **more: Any) -> list[str]:
    return spec_of({"Image": "i", "Labels": labels, **more}, "", "").security_groups


def test_a_label_or_an_annotation_names_them() -> None:
    label = {"hypercontainer.security-group": "web, ssh,web"}
    assert groups({}) == groups({"hypercontainer.security-group": " "}) == []
    assert groups(label) == groups({}, HostConfig={"Annotations": label}) == ["web", "ssh"]


def test_too_many_are_refused() -> None:
    label = ",".join(f"g{n}" for n in range(17))
    with pytest.raises(InvalidArgument, match="hypercontainer.security-group: a pod is in 16 security groups at most"):
        groups({"hypercontainer.security-group": label})
