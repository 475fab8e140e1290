# SPDX-License-Identifier: Apache-2.0
"""Egress policies by Docker's API, which has no fields for them."""

from __future__ import annotations

from typing import Any

import pytest

from hypercontainer.docker.container_request import spec_of
from hypercontainer.errors import InvalidArgument
from hypercontainer.model.egress import EgressPolicy, EgressSecret, parse_host

SECRET = {"hypercontainer.inject-secret": "T@api.example.com, U@b.example:8443:X-Key"}


def policy(labels: dict[str, str], **more: Any) -> EgressPolicy | None:
    return spec_of({"Image": "i", "Labels": labels, **more}, "", "").egress


def test_labels_and_annotations() -> None:
    hosts = {"hypercontainer.allow-host": "a.example, *.b.example:8443"}
    expected = EgressPolicy(hosts=[parse_host("a.example"), parse_host("*.b.example:8443")])
    assert policy(hosts) == policy({}, HostConfig={"Annotations": hosts}) == expected
    assert policy({"hypercontainer.egress": "none"}, HostConfig={"Annotations": hosts}) == expected
    assert policy({"hypercontainer.egress": "none"}) == EgressPolicy()
    assert policy({"hypercontainer.egress": "open"}) is policy({}) is None
    with pytest.raises(InvalidArgument, match="invalid label hypercontainer.egress 'all': write open or none"):
        policy({"hypercontainer.egress": "all"})


def test_secrets_are_variables_of_the_request() -> None:
    expected = [
        EgressSecret(name="T", host="api.example.com", value=b"first=1"),
        EgressSecret(name="U", host="b.example", port=8443, header="X-Key", value=b"second"),
    ]
    assert policy(SECRET, Env=["T=first=1", "U=second", "V"]) == EgressPolicy(secrets=expected)
    for env, says in ((["T=x", "U"], "the variable U has no value: give it, by -e U"), (["T= x", "U=y"], "header")):
        with pytest.raises(InvalidArgument, match=says):
            policy(SECRET, Env=env)
