# SPDX-License-Identifier: Apache-2.0
"""Records in groups, beside a plain dictionary of them."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from msgspec import UNSET

from hypercontainer.engine.indexed import Indexed
from hypercontainer.model.principal import Tenant


@dataclass(frozen=True)
class Record:
    number: int
    tenant: Tenant
    places: tuple[str, ...]


TENANTS: tuple[Tenant, ...] = (UNSET, "a", "b")


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_what_a_look_at_all_records_finds(seed: int) -> None:
    chance = random.Random(seed)
    indexed, plain = Indexed[Record](groups=lambda r: r.places), dict[str, Record]()
    for number in range(200):
        id_ = str(chance.randrange(12))
        if chance.random() < 0.3:
            assert indexed.pop(id_) == plain.pop(id_, None)
        else:
            places = tuple(chance.sample("xyz", chance.randrange(4)))
            indexed[id_] = plain[id_] = Record(number, chance.choice(TENANTS), places)
        assert list(indexed.values()) == list(plain.values())
        for tenant in TENANTS:
            assert set(indexed.of(tenant)) == {r for r in plain.values() if r.tenant == tenant}
        for place in "xyz":
            assert set(indexed.group(place)) == {r for r in plain.values() if place in r.places}
    for id_ in list(plain):
        assert id_ in indexed and indexed[id_] == indexed.get(id_) == plain[id_]
        indexed.pop(id_)
    assert not indexed.values() and indexed.get("none") is None
    assert not indexed._tenants and not indexed._groups and not indexed._within


def test_a_record_that_changes_keeps_its_place_in_the_order() -> None:
    found = Indexed([(str(n), Record(n, "a", ("x",))) for n in range(3)], lambda r: r.places)
    found["0"] = Record(9, "a", ("x", "y"))
    assert [r.number for r in found.of("a")] == [r.number for r in found.group("x")] == [9, 1, 2]
