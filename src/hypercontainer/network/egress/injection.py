# SPDX-License-Identifier: Apache-2.0
"""Hosts in whose place the proxy answers by TLS, so that secrets take their placeholders' place on the way there."""

from __future__ import annotations

import base64
import binascii
import os
import ssl
from collections.abc import Sequence
from functools import partial

from .channel import Channel, Closed, Stream, TlsChannel
from .http import Headers, Open, Relay
from .messages import Intercepted, Job, Swap
from .refused import Refused

_HANDSHAKE = 30.0  # seconds
_HIDDEN_MIN = 8  # letters of a secret that is looked for in answers: a shorter one may be there by chance


class Injection:
    """Of one pod."""

    def __init__(self, job: Job) -> None:
        """All contexts are made here, as long as files can be opened."""
        self._hosts = {(i.host, i.port): (_server(i), i.swaps) for i in job.intercepted}
        "a.example".encode("idna")  # a module, which `ssl` asks for when it is given a server's name
        self._far = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._far.set_alpn_protocols(["http/1.1"])
        if job.authorities:
            self._far.load_verify_locations(cadata=_certificates(job.authorities))

    def has(self, host: str, port: int) -> bool:
        """Whether a secret goes there."""
        return (host, port) in self._hosts

    async def serve(self, client: Channel, host: str, port: int, open_: Open) -> None:
        """All requests of a connection to that host. :raise Refused: one is not allowed, or the host is another."""
        context, swaps = self._hosts[host, port]
        near = TlsChannel(client, context)
        try:
            await near.shake_hands(_HANDSHAKE)
        except ssl.SSLError as error:
            raise Refused(f"its TLS fails: {error.reason}", host, port) from None

        async def verified(host: str, port: int) -> Stream:
            below = await open_(host, port)
            assert isinstance(below, Channel)
            far = TlsChannel(below, self._far, server_name=host)
            try:
                await far.shake_hands(_HANDSHAKE)
            except (ssl.SSLError, Closed, TimeoutError) as error:
                below.close()
                why = getattr(error, "verify_message", "") or getattr(error, "reason", "") or "it does not answer"
                raise Refused(f"the host is not who it should be: {why}", host, port) from None
            return far

        await Relay(
            near, port, verified, inside=host, change=partial(swapped, swaps=swaps), back=partial(hidden, swaps=swaps)
        ).run()
        near.close()


def swapped(headers: Headers, swaps: Sequence[Swap]) -> Headers:
    """With secrets in their placeholders' place, also within the base64 of HTTP's basic authentication."""
    return [(name, _swapped(name, value, swaps)) for name, value in headers]


def hidden(headers: Headers, swaps: Sequence[Swap]) -> Headers:
    """An answer's, with placeholders again: many servers send some headers back, X-Request-Id or Origin, say."""
    return [(name, _hidden(value, swaps)) for name, value in headers]


def _hidden(value: bytes, swaps: Sequence[Swap]) -> bytes:
    for swap in (s for s in swaps if len(s.value) >= _HIDDEN_MIN):
        value = value.replace(swap.value.encode(), swap.placeholder.encode())
    return value


def _swapped(name: bytes, value: bytes, swaps: Sequence[Swap]) -> bytes:
    mine = [s for s in swaps if s.header in ("", name.decode("latin-1").lower())]
    kind, _, coded = value.partition(b" ")
    if name.lower() == b"authorization" and kind.lower() == b"basic":
        try:
            plain = base64.b64decode(coded.strip(), validate=True)
        except binascii.Error:
            return value
        changed = _replaced(plain, mine)
        return value if changed == plain else kind + b" " + base64.b64encode(changed)
    return _replaced(value, mine)


def _replaced(value: bytes, swaps: Sequence[Swap]) -> bytes:
    for swap in swaps:
        value = value.replace(swap.placeholder.encode(), swap.value.encode())
    return value


def _server(what: Intercepted) -> ssl.SSLContext:
    """OpenSSL takes a certificate with its key from a file alone: this one is in memory."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    fd = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(fd, (what.certificate + what.key).encode())
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    return context


def _certificates(bundle: str) -> str:
    """Without what is between them, which OpenSSL stumbles over."""
    end = "-----END CERTIFICATE-----"
    parts = [part[part.index("-----BEGIN") :] + end for part in bundle.split(end)[:-1] if "-----BEGIN" in part]
    return "\n".join(part for part in parts if part.isascii())
