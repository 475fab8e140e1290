# SPDX-License-Identifier: Apache-2.0
"""Networks as a picture: where their lines are, and who is in which."""

from __future__ import annotations

from hypercontainer.console.drawing import cut, drawn
from hypercontainer.model.network import Network, NetworkInfo


def of(name: str, **pods: list[str]) -> NetworkInfo:
    return NetworkInfo(
        network=Network(id=name, name=name, created_at="", bridge="", subnet="10.0.0.0/24", gateway="10.0.0.1"),
        pods=pods,
    )


def test_each_pod_has_a_row_and_a_dot_in_each_of_its_networks() -> None:
    networks = [of("back", db=["10.0.0.2"], web=["10.0.0.3"]), of("front", web=["10.1.0.2", "fd00::2"]), of("idle")]
    found = drawn(networks, {"web": "8080→80"})
    assert [n.name for n in found.networks] == ["back", "front", "idle"]
    assert [(p.name, p.about) for p in found.pods] == [("db", ""), ("web", "8080→80")]
    back, front, idle = (n.at for n in found.networks)
    db, web = (p.at for p in found.pods)
    assert found.dots == [(back, db, "10.0.0.2"), (back, web, "10.0.0.3"), (front, web, "10.1.0.2")]
    assert [p.end for p in found.pods] == [back, front]  # as far as the last network that it is in
    assert back < front < idle < found.width and max(db, web) < found.height


def test_nothing_is_drawn_too_far() -> None:
    assert drawn([], {}).dots == []
    assert drawn([of("alone")], {}).pods == []
    assert (cut("a" * 22), cut("a" * 23)) == ("a" * 22, "a" * 21 + "…")
