# SPDX-License-Identifier: Apache-2.0
"""A session: the connection by which the builder asks, as long as a build lasts."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator, Mapping
from urllib.parse import urlencode

from ...client.api import Client
from ...errors import HyperError, Unavailable
from .grpc import Handler, Server


@contextlib.contextmanager
def session(hyperd: Client, handlers: Mapping[str, Handler]) -> Iterator[str]:
    """Answer by these handlers, by path; the session's id, which the build names.

    What goes wrong here is raised in place of what the builder makes of it, when the block fails.

    :raise HyperError: there is no builder, or it takes no session.
    """
    id_ = uuid.uuid4().hex
    query = urlencode([("id", id_), *(("method", path) for path in handlers)])
    upgrade = {"Connection": "Upgrade", "Upgrade": "h2c"}
    response = hyperd.open("POST", f"/build/session?{query}", headers=upgrade)
    if response.status != 101:
        raise Unavailable(f"hyperd did not open a session (status {response.status})")
    sock, begun = response.connection.raw()
    with sock:
        server = Server(sock, handlers, begun)
        answering = threading.Thread(target=server.run, daemon=True)
        answering.start()
        try:
            yield id_
        except HyperError as error:
            if server.failed:
                raise server.failed from error
            raise
        finally:
            server.close()
            answering.join()
