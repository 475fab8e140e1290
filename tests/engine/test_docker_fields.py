# SPDX-License-Identifier: Apache-2.0
"""Every field of a container's request is taken to the engine, or refused by its name when it is set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hypercontainer.docker import container_fields as fields
from hypercontainer.docker.container_bodies import Config, Endpoint, HostConfig

from .docker_fields import CONFIG, ENDPOINT, HOST_CONFIG
from .served import Served, served

_TABLES: list[tuple[str, dict[str, Any], type[Any], dict[str, Any]]] = [
    ("Config", CONFIG, Config, fields.CONFIG),
    ("HostConfig", HOST_CONFIG, HostConfig, fields.HOST_CONFIG),
    ("EndpointsConfig", ENDPOINT, Endpoint, fields.ENDPOINT),
]


@pytest.mark.parametrize(("what", "reference", "taken", "others"), _TABLES, ids=[t[0] for t in _TABLES])
def test_each_field_is_known(what: str, reference: dict[str, Any], taken: type[Any], others: dict[str, Any]) -> None:
    """Once, and nothing is known that the reference does not have."""
    typed = {f.encode_name for f in msgspec.structs.fields(taken)}
    assert typed & set(others) == set(), what
    assert typed | set(others) == set(reference), what


async def _others(s: Served) -> None:
    body = {"Image": "box", "HostConfig": {"Binds": ["vol:/shared"]}}
    assert (await s.ask("POST", "/containers/create?name=other", body, docker=True)).status == 201


async def _try(s: Served, body: dict[str, Any]) -> tuple[int, str]:
    answer = await s.ask("POST", "/containers/create?name=a", {"Image": "box", **body}, docker=True)
    if answer.status == 201:
        assert (await s.ask("GET", "/containers/a/json", docker=True)).status == 200
        assert (await s.ask("DELETE", "/containers/a", docker=True)).status == 204
        return 201, ""
    assert list(answer.json) == ["message"]
    return answer.status, answer.json["message"]


def _wrong(found: tuple[int, str], field: str, value: Any, status: int) -> list[str]:
    names = field in found[1] or status not in (501,)
    return [] if found[0] == status and names else [f"{field} {value!r}: {found}, not {status}"]


async def test_how_long_it_lives_is_said_by_labels(template: Path) -> None:
    async with served(template) as s:
        labels = {"hypercontainer.ttl": "1h30m"}
        made = await s.ask("POST", "/containers/create?name=b", {"Image": "box", "Labels": labels}, docker=True)
        assert made.status == 201 and s.stage.engine.registry.pod("b").spec.ttl == 5400
        wrong = await _try(s, {"Labels": {"hypercontainer.idle-timeout": "soon"}})
        assert wrong[0] == 400 and "invalid duration 'soon'" in wrong[1]


async def test_values_of_config_and_host_config(template: Path) -> None:
    wrong: list[str] = []
    async with served(template) as s:
        await _others(s)
        for field, cases in CONFIG.items():
            for value, status in cases:
                wrong += _wrong(await _try(s, {field: value}), field, value, status)
        for field, cases in HOST_CONFIG.items():
            for value, status in cases:
                wrong += _wrong(await _try(s, {"HostConfig": {field: value}}), field, value, status)
    assert not wrong, "\n".join(wrong)


async def test_values_of_endpoints(template: Path) -> None:
    wrong: list[str] = []
    async with served(template, network="bridge") as s:
        await _others(s)
        network = {"Name": "net", "IPAM": {"Config": [{"Subnet": "172.30.0.0/24"}]}}
        assert (await s.ask("POST", "/networks/create", network, docker=True)).status == 201
        for field, cases in ENDPOINT.items():
            for value, status in cases:
                body = {
                    "HostConfig": {"NetworkMode": "net"},
                    "NetworkingConfig": {"EndpointsConfig": {"net": {field: value}}},
                }
                wrong += _wrong(await _try(s, body), field, value, status)
    assert not wrong, "\n".join(wrong)


def test_the_page_names_what_is_refused(repository: Path) -> None:
    page = (repository / "docs/docker.md").read_text()
    for what, table in (("Config", fields.CONFIG), ("HostConfig", fields.HOST_CONFIG)):
        for name, rule in table.items():
            if isinstance(rule, fields.Only):
                assert re.search(rf"`{name}`", page), f"{what}.{name} is not on the page"
