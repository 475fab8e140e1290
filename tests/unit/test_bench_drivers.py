# SPDX-License-Identifier: Apache-2.0
"""Which drivers `python -m bench.drivers` measures."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from bench import drivers
from bench.measure import Figure

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


class Broken:
    """A bench in which the first driver fails after its first figure."""

    def measure(self, subject: drivers.Subject, _: str) -> Iterator[Figure]:
        yield Figure(f"{subject.name} starts", 1.0, "s")
        if subject.name == "qemu:microvm":
            raise RuntimeError("hyperctl run: it did not boot")
        yield Figure(f"{subject.name} ends", 1.0, "s")


def test_a_driver_that_fails_has_what_it_had_and_the_others_go_on() -> None:
    chosen = drivers.subjects(INFO, [])
    figures, failures = drivers.collect(Broken(), chosen, "kvm")  # type: ignore[arg-type]
    assert [f.name for found in figures.values() for f in found] == [
        "qemu:microvm starts",
        "qemu:q35 starts",
        "qemu:q35 ends",
    ]
    assert failures == ["qemu:microvm: hyperctl run: it did not boot"]
