# SPDX-License-Identifier: Apache-2.0
"""Addresses whose connections are spread over pods."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Balanced:
    """An address of a network, connections to which go to containers in turn."""

    id: str
    name: str  # by which pods of the network find it
    network: str  # id
    address: str
    port: int
    protocol: str
    target: int  # the containers' port
    targets: tuple[str, ...]  # their addresses, of which there may be none
    sticky: bool = False
    host_port: int = 0  # of the host, on all its addresses; 0: none
