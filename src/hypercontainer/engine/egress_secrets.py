# SPDX-License-Identifier: Apache-2.0
"""Secrets that go to a host and not into the pod: kept as its others are; the pod gets a placeholder and a CA."""

from __future__ import annotations

import secrets as chance

from msgspec.structs import replace

from ..errors import InvalidArgument
from ..model.egress import EgressPolicy
from ..model.specs import ContainerSpec
from ..network.egress import authority
from .secrets import Secrets

_PLACEHOLDER = "hypercontainer-secret-"


def kept(secrets: Secrets, pod_id: str, policy: EgressPolicy | None) -> EgressPolicy | None:
    """The policy as it is recorded: without the values, which are the pod's secrets now.

    :raise NoSpace: the disk is full. :raise Unavailable: this host trusts nobody. :raise InvalidArgument: one is empty.
    """
    if policy is None or not policy.secrets:
        return policy
    if empty := [secret.name for secret in policy.secrets if not secret.value]:
        raise InvalidArgument(f"the secret {empty[0]!r} is empty", hint="give its value")
    authority.host_bundle()
    certificate, key = authority.make()
    secrets.put(pod_id, authority.KEY, key)
    found = []
    for secret in policy.secrets:
        secrets.put(pod_id, authority.PREFIX + secret.name, secret.value)
        found.append(replace(secret, value=b"", placeholder=_PLACEHOLDER + chance.token_hex(16)))
    return replace(policy, secrets=found, authority=certificate)


def with_variables(spec: ContainerSpec, policy: EgressPolicy | None) -> ContainerSpec:
    """A container of the pod's, with placeholders, and with where the bundle is that has the CA."""
    if policy is None or not policy.secrets:
        return spec
    given = {entry.partition("=")[0] for entry in spec.env}
    own = [f"{name}={authority.BUNDLE}" for name in authority.VARIABLES if name not in given]
    names = {secret.name: secret.placeholder for secret in policy.secrets}
    others = [entry for entry in spec.env if entry.partition("=")[0] not in names]
    return replace(spec, env=[*others, *own, *(f"{name}={value}" for name, value in names.items())])


def without_variables(env: list[str], policy: EgressPolicy | None) -> list[str]:
    """As they were before `with_variables`: in an image placeholders mean nothing, and there is no bundle."""
    if policy is None:
        return env
    made = {f"{name}={authority.BUNDLE}" for name in authority.VARIABLES}
    made |= {f"{secret.name}={secret.placeholder}" for secret in policy.secrets}
    return [entry for entry in env if entry not in made]


def bundle(policy: EgressPolicy) -> bytes:
    """What this host trusts, and the pod's CA, PEM. :raise Unavailable: this host trusts nobody."""
    return authority.host_bundle().rstrip() + b"\n" + policy.authority.encode()
