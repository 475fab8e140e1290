# SPDX-License-Identifier: Apache-2.0
"""Why a connection of a pod leads nowhere."""

from __future__ import annotations


class Refused(Exception):
    """What a pod sent, or whom it meant, its policy does not allow; the text says why, the host that it named."""

    def __init__(self, why: str, host: str = "", port: int = 0) -> None:
        super().__init__(why)
        self.host = host
        self.port = port
