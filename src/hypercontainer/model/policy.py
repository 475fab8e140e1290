# SPDX-License-Identifier: Apache-2.0
"""What a project's containers may be, whoever makes them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from .base import Model

Words = Annotated[list[Annotated[str, Meta(min_length=1, max_length=300)]], Meta(max_length=100)]


class Policy(Model, frozen=True, kw_only=True):
    """None is anything; of a list, what is in it."""

    images: Words | None = None  # names in full that may be pulled; `*` is anything: registry.example.org/team/*
    signatures: str = ""  # of `image_policies` of hyperd's configuration; "": the host's own `image_policy`
    builds: bool = True  # images that are built, committed, loaded or imported
    privileged: bool = True
    host_paths: bool = True  # for those who have the scope `host`, as nobody else may have any
    capabilities: Words | None = None  # that may be added: CAP_NET_ADMIN, or without CAP_
    drivers: Words | None = None
    isolation: Literal["default", "fresh"] = "default"  # fresh: no other will do
