# SPDX-License-Identifier: Apache-2.0
"""Which container a filter's name means."""

from __future__ import annotations

import pytest

from hypercontainer.model.container_filters import Listed, select
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.model.status import Container, ContainerState, ContainerStatus, Process


def listed(id_: str, name: str) -> Listed:
    process = Process(args=["x"], env=[], cwd="/", user="", stop_signal=15)
    return Listed(
        Container(
            id=id_, name=name, pod="p", created_at="", image="i", image_id="i", hostname="h", process=process,
            spec=ContainerSpec(image="i", name=name), log_path="", state=ContainerState(status=ContainerStatus.CREATED),
        ), {},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"since": ["a"]}, ["c", "b"]), ({"before": ["a"]}, ["d"]), ({"since": ["aa"]}, ["c"]),
        ({"since": ["dd1"]}, ["c", "b", "a"]),
    ],
)  # fmt: skip
def test_a_name_is_meant_before_the_beginning_of_an_id(filters: dict[str, list[str]], expected: list[str]) -> None:
    newest = [listed("cc0", "c"), listed("aa0", "b"), listed("bb0", "a"), listed("dd1", "d")]
    found = select(newest, filters, all_=True, is_of=lambda *_: False)
    assert [x.container.name for x in found] == expected
