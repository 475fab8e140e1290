# SPDX-License-Identifier: Apache-2.0
"""Which drivers `python -m bench.drivers` measures."""

from __future__ import annotations

import sys

import pytest
from bench import drivers

INFO = {
    "drivers": [{"name": "qemu", "usable": True, "can": ["pool"]}, {"name": "firecracker", "usable": False, "can": []}]
}


def test_those_that_work() -> None:
    assert [s.name for s in drivers.subjects(INFO, [])] == ["qemu:microvm", "qemu:q35"]
    assert [s.name for s in drivers.subjects(INFO, ["qemu:q35"])] == ["qemu:q35"]


@pytest.mark.parametrize("name", ["firecracker", "nonsense", "qemu:pc"])
def test_what_does_not_work_is_said(name: str) -> None:
    with pytest.raises(SystemExit, match=f"no driver {name} works on this host"):
        drivers.subjects(INFO, ["qemu", name])


@pytest.mark.parametrize("option", ["--runs", "--pods", "--megabytes"])
def test_nothing_is_measured_no_times(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.drivers", option, "0"])
    with pytest.raises(SystemExit):
        drivers._plan()
    assert "'0' is no count: it is 1 at least" in capsys.readouterr().err
