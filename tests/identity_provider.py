# SPDX-License-Identifier: Apache-2.0
"""An identity provider (OpenID Connect Core 1.0, RFC 7636, RFC 8628) on loopback, with real keys, where all consent."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from aiohttp.test_utils import TestServer
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

CLIENT, SECRET = "hyper", "a secret:of the client"


def _key() -> ECKey:
    return ECKey.generate_key("P-256", {"kid": secrets.token_hex(4), "use": "sig", "alg": "ES256"})


@dataclass
class IdentityProvider:
    """What it says, and is asked; `claims` are beside those that a token has anyway, and in their place."""

    claims: dict[str, Any] = field(default_factory=dict)
    elsewhere: dict[str, Any] | None = None  # claims at its userinfo; None: it has none
    described: dict[str, Any] = field(default_factory=dict)  # in its description, in place of what is there
    key: ECKey = field(default_factory=_key)
    forger: ECKey | None = None  # who signs in its place, by a key of the same name
    entered: set[str] = field(default_factory=set)  # codes of devices
    refused: str = ""  # a device's error
    silent: int = 0  # questions for tokens that are answered 503
    asked: list[str] = field(default_factory=list)  # paths
    issuer: str = ""
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def rotate(self) -> None:
        """It has another key from now on, and the old one no more."""
        self.key = _key()

    def token(self, nonce: str = "") -> str:
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "sub": "ann-1", "iat": now, "exp": now + 300, **self.claims}
        if nonce:
            claims.setdefault("nonce", nonce)
        return jwt.encode({"alg": "ES256", "kid": self.key.kid}, claims, self.forger or self.key)

    async def describe(self, request: web.Request) -> web.Response:
        base = self.issuer
        return web.json_response({
            "issuer": base, "authorization_endpoint": f"{base}/authorize", "token_endpoint": f"{base}/token",
            "jwks_uri": f"{base}/keys", "device_authorization_endpoint": f"{base}/device",
            **({} if self.elsewhere is None else {"userinfo_endpoint": f"{base}/userinfo"}), **self.described,
        })  # fmt: skip

    async def keys(self, request: web.Request) -> web.Response:
        return web.json_response(KeySet([self.key]).as_dict(private=False))

    async def authorize(self, request: web.Request) -> web.Response:
        asked = dict(request.query)
        assert (asked["response_type"], asked["client_id"], asked["code_challenge_method"]) == ("code", CLIENT, "S256")
        code = secrets.token_hex(8)
        self._codes[code] = asked
        back = urlencode({"code": code, "state": asked["state"], "iss": self.issuer})
        raise web.HTTPFound(f"{asked['redirect_uri']}?{back}")

    async def device(self, request: web.Request) -> web.Response:
        return web.json_response({
            "device_code": secrets.token_hex(8), "user_code": "ABCD-EFGH", "verification_uri": f"{self.issuer}/enter",
            "expires_in": 300, "interval": 1,
        })  # fmt: skip

    async def userinfo(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer x":
            return _error("invalid_token", 401)
        return web.json_response({"sub": "ann-1", **(self.elsewhere or {})})

    async def redeem(self, request: web.Request) -> web.Response:
        if self.silent:
            self.silent -= 1
            return web.Response(status=503)
        form = {name: str(value) for name, value in (await request.post()).items()}
        if request.headers.get("Authorization") != _basic(CLIENT, SECRET):
            return _error("invalid_client", 401)
        if form["grant_type"] != "authorization_code":
            if self.refused:
                return _error(self.refused)
            return web.json_response({"id_token": self.token()}) if self.entered else _error("authorization_pending")
        asked = self._codes.pop(form["code"], None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if not asked or (asked["code_challenge"], asked["redirect_uri"]) != (challenge.decode(), form["redirect_uri"]):
            return _error("invalid_grant")
        return web.json_response({"id_token": self.token(asked["nonce"]), "access_token": "x", "token_type": "Bearer"})


def _basic(client: str, secret: str) -> str:
    pair = urlencode({"": client})[1:] + ":" + urlencode({"": secret})[1:].replace("+", "%20")
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _error(code: str, status: int = 400) -> web.Response:
    return web.json_response({"error": code}, status=status)


@contextlib.asynccontextmanager
async def identity_provider() -> AsyncIterator[IdentityProvider]:
    """It answers until the end."""
    made = IdentityProvider()

    @web.middleware
    async def noted(request: web.Request, handler: Any) -> web.StreamResponse:
        made.asked.append(request.path)
        response: web.StreamResponse = await handler(request)
        return response

    app = web.Application(middlewares=[noted])
    app.router.add_get("/.well-known/openid-configuration", made.describe)
    app.router.add_get("/keys", made.keys)
    app.router.add_get("/authorize", made.authorize)
    app.router.add_post("/device", made.device)
    app.router.add_post("/token", made.redeem)
    app.router.add_get("/userinfo", made.userinfo)
    async with TestServer(app, host="127.0.0.1") as server:
        made.issuer = str(server.make_url("")).rstrip("/")
        yield made
