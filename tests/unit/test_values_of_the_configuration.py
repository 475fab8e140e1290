# SPDX-License-Identifier: Apache-2.0
"""A value that means nothing is told by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypercontainer.errors import InvalidArgument
from hypercontainer.hyperd.config import load


@pytest.mark.parametrize(
    "key", ["cri_pod_memory", "scratch_size", "io_rate", "egress_rate", "ingress_rate", "log_max_size", "image_size",
            "factory_memory", "events_max_age", "builder.memory", "builder.keep"],
)  # fmt: skip
def test_it_is_named(tmp_path: Path, key: str) -> None:
    table, _, name = key.rpartition(".")
    path = tmp_path / "hyperd.toml"
    path.write_text(f'[{table}]\n{name} = "lots"\n' if table else f'{name} = "lots"\n')
    with pytest.raises(InvalidArgument, match=f"^{key}: invalid .*'lots'"):
        load(path, {})
