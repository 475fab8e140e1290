# SPDX-License-Identifier: Apache-2.0
"""What a method is given."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from ..engine.engine import Engine
from .sandbox_request import CriSettings


@dataclass(frozen=True)
class Call:
    """One request."""

    engine: Engine
    request: Any
    settings: CriSettings
    version: str  # of the protocol: v1 or v1alpha2


Method = Callable[[Call], Awaitable[Any]]
Stream = Callable[[Call], AsyncGenerator[Any, None]]
