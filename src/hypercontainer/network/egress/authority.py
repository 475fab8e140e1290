# SPDX-License-Identifier: Apache-2.0
"""A pod's own CA, and certificates of it for the hosts that the pod's secrets go to.

The pod trusts the CA. Its key, and the keys of the certificates, are hyperd's and the proxy's; a pod that copied the
certificate of another pod's CA gains nothing by it.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import Unavailable
from ...model.egress import EgressPolicy
from ...sys import clock
from .messages import Intercepted, Swap

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

KEY = "egress.authority"  # the pod's secret that is the CA's key, PEM; no secret's name with PREFIX has a dot
PREFIX = "egress-"  # and a secret's name: what it is kept as
BUNDLE = "/etc/ssl/hypercontainer-ca.pem"  # in the container: what this host trusts, and the CA
# What programs and libraries take in place of their own bundle: OpenSSL, curl, requests, Node, git, AWS, Deno.
VARIABLES = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO",
             "AWS_CA_BUNDLE", "DENO_CERT")  # fmt: skip
_YEARS = 10
_DAY = timedelta(days=1)


def host_bundle() -> bytes:
    """What this host trusts, PEM. :raise Unavailable: it has no certificates of CAs."""
    paths = ssl.get_default_verify_paths()
    for path in (paths.cafile, paths.openssl_cafile, "/etc/ssl/certs/ca-certificates.crt"):
        if path and Path(path).is_file():
            return Path(path).read_bytes()
    raise Unavailable("this host has no certificates of authorities", hint="install the package ca-certificates")


def make() -> tuple[str, bytes]:
    """A new CA: its certificate and its key, PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("HyperContainer, for one pod")
    made = _builder(name, name, key.public_key(), _YEARS * 365 * _DAY)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    made = made.add_extension(usage, critical=True)
    return _signed(made, key), _pem(key)


def intercepted(policy: EgressPolicy, secret: Callable[[str], bytes]) -> list[Intercepted]:
    """Each host with a certificate, its key, and what is swapped on the way there."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509.oid import ExtendedKeyUsageOID

    signer = load_pem_private_key(secret(KEY), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    issuer = x509.load_pem_x509_certificate(policy.authority.encode())
    found = []
    for host, port in sorted({(s.host, s.port) for s in policy.secrets}):
        key = ec.generate_private_key(ec.SECP256R1())
        made = _builder(_name(host[:64]), issuer.subject, key.public_key(), 365 * _DAY)
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        made = made.add_extension(signed_by, critical=False)
        swaps = [
            Swap(s.placeholder, secret(PREFIX + s.name).decode("ascii"), s.header.lower())
            for s in policy.secrets
            if (s.host, s.port) == (host, port)
        ]
        found.append(Intercepted(host, port, _signed(made, signer), _pem(key).decode(), swaps))
    return found


def _name(text: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, valid: timedelta
) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.fromtimestamp(clock.now_ns() / 1e9, UTC)
    return (
        x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key)
        .serial_number(x509.random_serial_number()).not_valid_before(now - _DAY).not_valid_after(now + valid)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )  # fmt: skip


def _signed(made: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    return made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
