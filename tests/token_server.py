# SPDX-License-Identifier: Apache-2.0
"""A server of tokens for a registry (https://distribution.github.io/distribution/spec/auth/), on loopback.

It gives whoever shows its identity token a registry token, a JWT (RFC 7519, ES256) that is good for what was asked.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from .certificates import Authority, Pair

IDENTITY = "an-identity-token"


@dataclass
class TokenServer:
    """`configuration` is for the registry's; `asked` are forms of requests, by their fields."""

    configuration: str
    asked: list[dict[str, str]] = field(default_factory=list)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _signed(pair: Pair, scope: str) -> str:
    """For `repository:NAME:ACTION,...`, or for a log-in alone."""
    cert = x509.load_pem_x509_certificate(pair.cert.read_bytes()).public_bytes(serialization.Encoding.DER)
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    now = int(time.time())
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    access = [{"type": kind, "name": name, "actions": actions.split(",")}] if scope else []
    claims = {"iss": "tests", "sub": "me", "aud": "registry", "nbf": now - 60, "exp": now + 3600, "iat": now,
              "jti": str(now), "access": access}  # fmt: skip
    head = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(cert).decode()]}
    text = f"{_b64(json.dumps(head).encode())}.{_b64(json.dumps(claims).encode())}"
    numbers = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{text}.{_b64(b''.join(n.to_bytes(32, 'big') for n in numbers))}"


@contextlib.asynccontextmanager
async def serving_tokens(directory: Path) -> AsyncIterator[TokenServer]:
    """One that answers, and ends with the block."""
    authority = Authority(directory)
    pair = authority.sign("tokens")

    async def answer(request: web.Request) -> web.Response:
        form = {key: str(value) for key, value in (await request.post()).items()}
        found.asked.append(form)
        if (form.get("grant_type"), form.get("refresh_token")) != ("refresh_token", IDENTITY):
            return web.json_response({"details": "unauthorized"}, status=401)
        return web.json_response({"access_token": _signed(pair, form.get("scope", "")), "expires_in": 3600})

    application = web.Application()
    application.router.add_route("*", "/token", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        listening = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listening).start()
        found = TokenServer(
            f"auth: {{token: {{realm: 'http://127.0.0.1:{listening.getsockname()[1]}/token', service: registry, "
            f"issuer: tests, rootcertbundle: {authority.cert}}}}}\n"
        )
        yield found
    finally:
        await runner.cleanup()
