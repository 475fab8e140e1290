# SPDX-License-Identifier: Apache-2.0
"""What skopeo says, in a sentence that tells its reader what to do."""

from __future__ import annotations

import json

import pytest

from hypercontainer.images.skopeo import error_from

NO_NETWORK = "cannot pull x:1: this host has no network to reach the registry by"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            'Error parsing image name "docker://docker.io/library/x:1": pinging container registry: '
            'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io on 192.0.2.53:53: '
            "dial udp 192.0.2.53:53: connect: network is unreachable",
            NO_NETWORK,
        ),
        ('Get "https://r.example/v2/": dial tcp 192.0.2.1:443: connect: no route to host', NO_NETWORK),
        (
            'Get "https://r.example/v2/": dial tcp: lookup r.example on 192.0.2.53:53: no such host',
            "cannot pull x:1: no such registry: its name cannot be resolved",
        ),
    ],
)
def test_a_host_without_network(words: str, sentence: str) -> None:
    error = error_from(f'time="2026-01-01T00:00:00Z" level=fatal msg={json.dumps(words)}\n', "x:1")
    assert str(error).startswith(sentence)
