# SPDX-License-Identifier: Apache-2.0
"""One cluster with one node for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import wait_for

from .components import Components, components
from .control import Control, control
from .node import Node, node
from .space import Space, space

RUNTIME_CLASSES = Path(__file__).parents[2] / "deploy/kubernetes/runtimeclasses.yaml"


@pytest.fixture(scope="session")
def programs() -> Components:
    return components()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, programs: Components) -> Iterator[Control]:
    with control(tmp_path_factory.mktemp("control"), programs) as found:
        yield found


@pytest.fixture(scope="session")
def first(cluster: Control, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node, in a cluster that has our runtime classes."""
    place: Path = tmp_path_factory.mktemp("nodes") / "1"
    cluster.kubectl("apply", "-f", RUNTIME_CLASSES)
    with node(cluster, 1, place) as found:
        yield found


@pytest.fixture
def here(cluster: Control, first: Node) -> Iterator[Space]:
    """A namespace of the test's own; afterwards the node has no pod of it."""
    with space(cluster) as found:
        yield found
    wait_for(lambda: not first.hyper.out("pod", "ls", "-q"), "the end of all pods")
    first.hyper.world.check()
