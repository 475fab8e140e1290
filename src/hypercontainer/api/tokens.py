# SPDX-License-Identifier: Apache-2.0
"""Tokens over REST."""

from __future__ import annotations

from ..model.tokens import NewToken, TokenInfo, TokenRequest
from .router import Context, Routes

routes = Routes()


@routes.post("/tokens", body=TokenRequest, status=201, scope="manage")
async def create(c: Context) -> NewToken:
    """Create a token; its secret is told here only."""
    return c.engine.tokens.create(await c.body(TokenRequest))


@routes.get("/tokens", scope="manage")
async def list_(c: Context) -> list[TokenInfo]:
    """List tokens, newest first."""
    return c.engine.tokens.all()


@routes.delete("/tokens/{id}", scope="manage")
async def revoke(c: Context) -> TokenInfo:
    """Revoke a token, and close what is open with it."""
    return c.engine.tokens.revoke(c.id)
