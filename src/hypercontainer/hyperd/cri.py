# SPDX-License-Identifier: Apache-2.0
"""The socket of CRI. What serves it is imported when it is asked for: gRPC takes 29 MB and 80 ms."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from ..engine.engine import Engine
from .config import Config
from .listening import give, streaming_socket

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def cri(config: Config, engine: Engine) -> AsyncIterator[None]:
    """Answer until the end of the block, where it is configured.

    :raise Unavailable: we cannot.
    """
    if not config.cri:
        yield
        return
    from ..cri.sandbox_request import CriSettings
    from ..cri.server import Server
    from ..cri.streaming.server import StreamingServer

    path = config.cri_path
    settings = CriSettings(memory=config.cri_pod_bytes, network=config.cri_network, kubelet=config.cri_kubelet)
    async with StreamingServer(engine, streaming_socket(config.cri_streaming)) as streaming:
        server = Server(engine, streaming, settings)
        await server.open(path)  # with umask 077: it is for us alone until it has its group
        try:
            give(path, config)
            log.info("CRI is served on %s, streams on %s", path, streaming.address)
            yield
        finally:
            await server.close()
            path.unlink(missing_ok=True)
