# SPDX-License-Identifier: Apache-2.0
"""TLS as hyperd serves it: certificates, a list of revoked ones, and new ones of both without a restart.

The files are looked at when a client comes. OpenSSL asks for the name of the server before it looks at anything of
the client's, and takes another context then (SSL_CTX_set_tlsext_servername_callback(3), SSL_set_SSL_CTX).
"""

from __future__ import annotations

import logging
import os
import ssl
import stat

from ..errors import HyperError, InvalidArgument, PermissionDenied
from .config import Config

log = logging.getLogger(__name__)
Stamps = tuple[tuple[int, int, int], ...]


def server_context(config: Config, certificates: ssl.VerifyMode = ssl.CERT_OPTIONAL) -> ssl.SSLContext:
    """TLS 1.3 and nothing older; clients may, must, or cannot show a certificate of `tlscacert`.

    :raise InvalidArgument: a file that is missing or is not what it should be. :raise PermissionDenied: others can
    read the key.
    """
    if not config.tlscert or not config.tlskey:
        raise InvalidArgument("TCP is served with TLS only", hint="give --tlscert and --tlskey")
    if config.tlscrl and not config.tlscacert:
        raise InvalidArgument("a list of revoked certificates without their CA", hint="give --tlscacert, too")
    if certificates is ssl.CERT_REQUIRED and not config.tlscacert:
        raise InvalidArgument("Docker's clients are known by their certificates", hint="give --tlscacert, their CA")
    context = _read(config, certificates)
    context.sni_callback = _Newest(config, context).choose
    return context


class _Newest:
    """What was read last of the files that can be served with."""

    def __init__(self, config: Config, context: ssl.SSLContext) -> None:
        self._config = config
        self._verified = context.verify_mode
        self._stamps = _stamps(config)
        self._context = context

    def choose(self, connection: ssl.SSLObject, name: str | None, first: ssl.SSLContext) -> None:
        """For a client that comes. Files that cannot be served with, such as half of a new pair, change nothing."""
        if (stamps := _stamps(self._config)) != self._stamps:
            self._stamps = stamps
            try:
                self._context = _read(self._config, self._verified)
                log.info("TLS: the files of certificates have changed and were read again")
            except HyperError as error:
                log.warning("TLS goes on with the certificates that it had: %s", error.message)
        connection.context = self._context


def _stamps(config: Config) -> Stamps:
    """What changes when a file is written or another takes its place."""
    found = []
    for path in filter(None, (config.tlscert, config.tlskey, config.tlscacert, config.tlscrl)):
        try:
            status = os.stat(path)
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)


def _read(config: Config, verified: ssl.VerifyMode) -> ssl.SSLContext:
    try:
        if os.stat(config.tlskey).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise PermissionDenied(
                f"others may use the key {config.tlskey}", hint=f"close it with `chmod 600 {config.tlskey}`"
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0  # a session that goes on would outlive the check of its certificate
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(config.tlscert, config.tlskey, password=_no_password)
        if config.tlscacert:
            context.load_verify_locations(config.tlscacert)
            context.verify_mode = verified
        if config.tlscrl:
            before = context.cert_store_stats()["x509"]
            context.load_verify_locations(config.tlscrl)
            if context.cert_store_stats()["crl"] == 0 or context.cert_store_stats()["x509"] != before:
                raise ValueError(f"{config.tlscrl} is no list of revoked certificates")
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    except HyperError:
        raise
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = ", ".join(filter(None, (config.tlscert, config.tlskey, config.tlscacert, config.tlscrl)))
        raise InvalidArgument(f"TLS cannot be served with {files}: {error}", hint="they must be PEM files") from error
    return context


def _no_password() -> str:
    raise ValueError("the key takes a password, which nobody is there to give")
