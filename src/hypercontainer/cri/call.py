# SPDX-License-Identifier: Apache-2.0
"""What a method is given."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..engine.engine import Engine
from ..model.principal import Principal
from .sandbox_request import CriSettings

if TYPE_CHECKING:
    from .streaming.server import StreamingServer

# Who asks by CRI's socket. gRPC does not tell which user of this host that is; the file's mode says who may.
CALLER = Principal("cri")


@dataclass(frozen=True)
class Call:
    """One request."""

    engine: Engine
    request: Any
    settings: CriSettings
    version: str  # of the protocol: v1 or v1alpha2
    streaming: StreamingServer


Method = Callable[[Call], Awaitable[Any]]
Stream = Callable[[Call], AsyncGenerator[Any, None]]
