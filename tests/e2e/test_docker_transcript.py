# SPDX-License-Identifier: Apache-2.0
"""Docker's own client, as people type it: each command with what it prints (tests/e2e/transcripts)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import transcript

from .conftest import Daemon

pytestmark = pytest.mark.e2e
_FILES = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", _FILES, ids=[p.stem for p in _FILES])
def test_what_the_client_prints(hyper: Daemon, path: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "DOCKER_HOST": f"unix://{hyper.run}/docker.sock",
        "DOCKER_CONFIG": str(tmp_path),
        "DOCKER_CLI_HINTS": "false",
        "TERM": "dumb",
    }
    steps = transcript.read(path)
    wrong = transcript.play(steps, environment, tmp_path)
    assert not wrong, f"{len(wrong)} of {len(steps)} steps:\n" + "\n".join(wrong)
