# SPDX-License-Identifier: Apache-2.0
"""An identity provider: described by itself (OpenID Connect Discovery 1.0), asked by HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import msgspec
from aiohttp import ClientSession, ClientTimeout, TCPConnector

from ..errors import InvalidArgument, Unauthorized, Unavailable, Unsupported
from ..sys import clock
from .id_tokens import BadSignature, read_keys, verify

_TIMEOUT = 10.0  # seconds for one question
_MOST = 1 << 20  # bytes of an answer
_FRESH = 3600.0  # seconds after which its description and its keys are asked for again
_BASIC, _POST = "client_secret_basic", "client_secret_post"
T = TypeVar("T")


@dataclass(frozen=True)
class ProviderSettings:
    """Which one, and as what we are known there."""

    issuer: str
    client: str
    secret: str = ""  # "": a public client
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    cacert: str = ""  # PEM file; "": this host's authorities
    claims: tuple[str, ...] = ()  # that are asked for at its userinfo endpoint where an ID token lacks one


class _Description(msgspec.Struct):
    """What we need of a provider's metadata."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    device_authorization_endpoint: str = ""
    userinfo_endpoint: str = ""
    token_endpoint_auth_methods_supported: list[str] = msgspec.field(default_factory=lambda: [_BASIC])
    authorization_response_iss_parameter_supported: bool = False


class DeviceCode(msgspec.Struct):
    """RFC 8628, 3.2; times in seconds."""

    device_code: str
    user_code: str
    verification_uri: str
    expires_in: float
    verification_uri_complete: str = ""
    interval: float = 5.0


class Refused(Unauthorized):
    """The provider's own word for why not, `reason`: RFC 6749, 5.2."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message, hint="begin the log-in again")
        self.reason = reason


class Provider:
    """One, which is asked for nothing before somebody logs in."""

    def __init__(self, settings: ProviderSettings) -> None:
        """:raise InvalidArgument: it would be spoken with in the clear."""
        self.settings = settings
        check_address("oidc.issuer", settings.issuer)
        self._description: _Description | None = None
        self._keys: Any = None
        self._described = self._keyed = 0.0  # when

    async def address(self, redirect: str, state: str, nonce: str, challenge: str) -> str:
        """Where a browser is sent (OpenID Connect Core 3.1.2.1, RFC 7636). :raise Unavailable: it does not answer."""
        described = await self._describe()
        query = {
            "response_type": "code", "client_id": self.settings.client, "redirect_uri": redirect,
            "scope": " ".join(self.settings.scopes), "state": state, "nonce": nonce, "code_challenge": challenge,
            "code_challenge_method": "S256",
        }  # fmt: skip
        joined = "&" if urlsplit(described.authorization_endpoint).query else "?"
        return f"{described.authorization_endpoint}{joined}{urlencode(query)}"

    async def names_itself(self, given: str | None) -> bool:
        """Whether an answer by the browser may be of this provider (RFC 9207)."""
        described = await self._describe()
        if given is None:
            return not described.authorization_response_iss_parameter_supported
        return given == described.issuer

    async def redeem(self, code: str, redirect: str, verifier: str, nonce: str) -> dict[str, Any]:
        """Claims for a browser's code. :raise Unauthorized: it is not good. :raise Unavailable: no answer."""
        form = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "code_verifier": verifier,
        }  # fmt: skip
        return await self._claims(form, nonce)

    async def device(self) -> DeviceCode:
        """A code that somebody enters elsewhere. :raise Unsupported: it has none. :raise Unavailable: no answer."""
        described = await self._describe()
        if not described.device_authorization_endpoint:
            raise Unsupported(
                "the identity provider has no log-in by a code", hint="log in to the console, or have a token made"
            )
        form = {"client_id": self.settings.client, "scope": " ".join(self.settings.scopes)}
        return _read(await self._post(described.device_authorization_endpoint, form), DeviceCode)

    async def redeem_device(self, code: str) -> dict[str, Any]:
        """Claims for it. :raise Refused: not yet, or not at all. :raise Unavailable: no answer."""
        return await self._claims(
            {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": code}, ""
        )

    async def _claims(self, form: dict[str, str], nonce: str) -> dict[str, Any]:
        described = await self._describe()
        found = await self._post(described.token_endpoint, form)
        text = found.get("id_token")
        if not isinstance(text, str):
            raise Unauthorized("the identity provider gave no ID token", hint="ask for the scope openid")
        claims = await self._verified(described, text, nonce)
        if described.userinfo_endpoint and not claims.keys() >= set(self.settings.claims):
            return {**await self._userinfo(described, found.get("access_token"), claims["sub"]), **claims}
        return claims

    async def _userinfo(self, described: _Description, token: object, sub: str) -> dict[str, Any]:
        """What else it tells of them (OpenID Connect Core 1.0, 5.3).

        :raise Unauthorized: it tells of another person. :raise Unavailable: it does not answer, or by a signed answer.
        """
        headers = {"Authorization": f"Bearer {token}"}
        told = await self._ask("GET", described.userinfo_endpoint, headers=headers)
        if told.get("sub") != sub:  # 5.3.2: a token may have been put in another's place
            raise Unauthorized(
                "the identity provider's userinfo tells of another person", hint="begin the log-in again"
            )
        return told

    async def _verified(self, described: _Description, text: str, nonce: str) -> dict[str, Any]:
        names = {"issuer": described.issuer, "client": self.settings.client, "nonce": nonce}
        had = self._keys is not None and clock.seconds() - self._keyed < _FRESH
        try:
            return await asyncio.to_thread(verify, text, await self._known_keys(fresh=not had), **names)
        except BadSignature:
            if not had:
                raise
        return await asyncio.to_thread(verify, text, await self._known_keys(fresh=True), **names)  # it has new ones

    async def _known_keys(self, *, fresh: bool) -> Any:
        if fresh:
            described = await self._describe()
            self._keys = read_keys(await self._ask("GET", described.jwks_uri))
            self._keyed = clock.seconds()
        return self._keys

    async def _describe(self) -> _Description:
        if self._description is None or clock.seconds() - self._described > _FRESH:
            address = f"{self.settings.issuer.rstrip('/')}/.well-known/openid-configuration"
            found = _read(await self._ask("GET", address), _Description)
            if found.issuer != self.settings.issuer:
                raise Unavailable(
                    f"the identity provider calls itself {found.issuer}", hint="correct `oidc.issuer`, to the letter"
                )
            for endpoint in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
                check_address("an address of the identity provider", endpoint)
            for endpoint in filter(None, (found.device_authorization_endpoint, found.userinfo_endpoint)):
                check_address("an address of the identity provider", endpoint)
            self._description, self._described = found, clock.seconds()
        return self._description

    async def _post(self, address: str, form: dict[str, str]) -> dict[str, Any]:
        described, own = await self._describe(), self.settings
        headers, sent = {}, dict(form)
        if not own.secret:
            sent["client_id"] = own.client
        elif _BASIC in described.token_endpoint_auth_methods_supported:
            pair = f"{quote(own.client, safe='')}:{quote(own.secret, safe='')}"  # RFC 6749, 2.3.1
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            sent |= {"client_id": own.client, "client_secret": own.secret}
        return await self._ask("POST", address, sent, headers)

    async def _ask(
        self, method: str, address: str, form: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        where = f"the identity provider ({urlsplit(address).netloc})"
        try:
            trusted = ssl.create_default_context(cafile=self.settings.cacert or None)
            async with (
                ClientSession(timeout=ClientTimeout(total=_TIMEOUT), connector=TCPConnector(ssl=trusted)) as session,
                session.request(
                    method, address, data=form, headers={"Accept": "application/json", **(headers or {})},
                    allow_redirects=False,
                ) as response,
            ):  # fmt: skip
                status, body = response.status, await _body(response)
        except TimeoutError:
            raise Unavailable(f"{where} has not answered within {_TIMEOUT:g} s", hint="try again later") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{where} cannot be reached: {error}", hint="try again later") from None
        return _answered(where, status, body)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    found = bytearray()
    async for piece in response.content.iter_chunked(1 << 16):
        found += piece
        if len(found) > _MOST:
            raise aiohttp.ClientPayloadError(f"its answer has more than {_MOST} bytes")
    return bytes(found)


def _answered(where: str, status: int, body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if status == 200 and isinstance(found, dict):
        return found
    if isinstance(found, dict) and isinstance(found.get("error"), str):
        said = found.get("error_description") or found["error"]
        raise Refused(f"{where} says: {str(said)[:300]}", found["error"])
    raise Unavailable(f"{where} answered {status}, and not what it was asked for", hint="correct `oidc.issuer`")


def _read(document: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise Unavailable(f"what the identity provider says of itself cannot be used: {error}") from None


def check_address(what: str, address: str) -> None:
    """:raise InvalidArgument: not by https, nor on this host's loopback."""
    parts = urlsplit(address)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise InvalidArgument(f"{what} {address!r} is not by https", hint="write it like https://id.example.org")
