# SPDX-License-Identifier: Apache-2.0
"""What a pod with an egress policy has reached and tried."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ...model.statistics import EgressStats

_MOST = 1 << 53  # that programs in other languages can count to, too


@dataclass
class Counts:
    """Of one pod."""

    connections: int = 0
    refused: int = 0
    refused_packets: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0

    def moved(self, received: int, sent: int) -> None:
        """Bytes, as the pod's proxy says, which may say anything."""
        self.rx_bytes = min(_MOST, self.rx_bytes + max(0, received))
        self.tx_bytes = min(_MOST, self.tx_bytes + max(0, sent))

    def stats(self) -> EgressStats:
        return EgressStats(**asdict(self))
