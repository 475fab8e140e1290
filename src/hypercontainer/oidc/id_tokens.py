# SPDX-License-Identifier: Apache-2.0
"""ID tokens, verified as OpenID Connect Core 1.0, 3.1.3.7 says."""

from __future__ import annotations

import hmac
from typing import Any

from ..errors import Unauthorized, Unsupported
from ..sys import clock

# Signatures by keys that only the provider has; neither none nor those by a secret that we have, too.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
_SKEW = 60  # seconds that the provider's clock may be another


def _need_jose() -> None:
    """:raise Unsupported: the library is not installed."""
    try:
        import joserfc  # noqa: F401
    except ImportError:
        raise Unsupported(
            "hyperd has no joserfc to verify log-ins with", hint="pip install 'hypercontainer[oidc]'"
        ) from None


def read_keys(document: dict[str, Any]) -> Any:
    """A provider's, of a JSON Web Key Set (RFC 7517).

    :raise Unauthorized: it is none. :raise Unsupported: there is no joserfc.
    """
    _need_jose()
    from joserfc.errors import JoseError
    from joserfc.jwk import KeySet

    try:
        kept = [key for key in document["keys"] if key.get("use", "sig") == "sig" and key.get("kty") != "oct"]
        return KeySet.import_key_set({"keys": kept})
    except (JoseError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unauthorized(f"the identity provider's keys cannot be read: {error!r}") from None


def verify(text: str, keys: Any, *, issuer: str, client: str, nonce: str = "") -> dict[str, Any]:
    """Its claims. `nonce` is what was sent along; "" is nothing.

    :raise BadSignature: no key of these has signed it. :raise Unauthorized: it is for others, or not for now.
    """
    from joserfc import jwt
    from joserfc.errors import JoseError

    try:
        claims: dict[str, Any] = jwt.decode(text, keys, algorithms=list(ALGORITHMS)).claims
    except (JoseError, ValueError, TypeError) as error:
        raise BadSignature(f"the identity provider's token cannot be verified: {error}") from None
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    _check(claims.get("iss") == issuer, "is another provider's")
    _check(client in audiences, "is for another client")
    _check(claims.get("azp", client if len(audiences) == 1 else None) == client, "was given to another client")
    _check(isinstance(claims.get("sub"), str) and bool(claims["sub"]), "does not say for whom it is")
    _check_times(claims)
    given = claims.get("nonce", "")
    same = isinstance(given, str) and hmac.compare_digest(given.encode(), nonce.encode())
    _check(same or not nonce, "is not of this log-in")
    return claims


class BadSignature(Unauthorized):
    """No key that we know has signed it; the provider may have new ones."""


def _check_times(claims: dict[str, Any]) -> None:
    now = clock.now_ns() / 1e9
    times: list[Any] = [claims.get("exp"), claims.get("iat"), claims.get("nbf", 0)]
    if not all(isinstance(moment, int | float) for moment in times):
        raise Unauthorized("the identity provider's token has no times")
    ends, *begins = times
    _check(ends + _SKEW > now, "has expired: is a clock wrong, this host's or the provider's?")
    early = "is of the future: is a clock wrong, this host's or the provider's?"
    _check(all(begin - _SKEW <= now for begin in begins), early)


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Unauthorized(f"the identity provider's token {otherwise}")
