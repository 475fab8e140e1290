# SPDX-License-Identifier: Apache-2.0
"""Getting along with Docker, which drops whatever it does not forward itself.

Docker leaves the chain DOCKER-USER to others for that
(https://docs.docker.com/engine/network/packet-filtering-firewalls/). Only
rules with our own comment are added there and removed again.
"""

from __future__ import annotations

import json
from typing import Any

from ..sys.process import run

_COMMENT = "hypercontainer"


async def _rules(family: str) -> list[dict[str, Any]] | None:
    """The chain's rules; None where there is no such chain."""
    done = await run("nft", "-j", "-a", "list", "chain", family, "filter", "DOCKER-USER")
    if done.status:
        return None
    return [entry["rule"] for entry in json.loads(done.stdout)["nftables"] if "rule" in entry]


async def sync(bridges: list[str]) -> None:
    """Let Docker's firewall forward for these bridges, and for none that we named before. Idempotent."""
    for family in ("ip", "ip6"):
        present = await _rules(family)
        if present is None:
            continue
        chain = f"rule {family} filter DOCKER-USER"
        lines = [f"delete {chain} handle {r['handle']}" for r in present if r.get("comment") == _COMMENT]
        lines += [
            f'insert {chain} {side} "{b}" accept comment "{_COMMENT}"'
            for b in bridges
            for side in ("iifname", "oifname")
        ]
        if lines:
            await run("nft", "-f", "-", stdin="\n".join(lines).encode())
