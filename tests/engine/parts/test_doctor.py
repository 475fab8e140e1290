# SPDX-License-Identifier: Apache-2.0
"""What doctor says of a host: each thing that may be missing, with a hint that helps."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hypercontainer.engine import doctor
from hypercontainer.engine.paths import BootFiles, Paths
from hypercontainer.errors import NotFound
from hypercontainer.hypervisor.driver import Probe
from hypercontainer.hypervisor.drivers import Drivers
from hypercontainer.hypervisor.fake import FakeDriver, FakeHost
from hypercontainer.kernel.locate import Kernel
from hypercontainer.model.host import Check

KERNEL = Path("/kernel")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Any:
    """One that has everything; a test takes away."""
    found = SimpleNamespace(free=100 << 30, missing=set(), uid=0, passt=None, tun=True, probe=Probe("kvm", "it works"))
    monkeypatch.setattr(shutil, "which", lambda name: None if name in found.missing else f"/usr/bin/{name}")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=found.free))
    monkeypatch.setattr(os, "geteuid", lambda: found.uid)
    monkeypatch.setattr(os, "access", lambda *_: found.tun)
    monkeypatch.setattr(doctor, "find_passt", lambda: found.passt)
    return found


class Driver(FakeDriver):
    def __init__(self, probe: Probe) -> None:
        super().__init__(FakeHost(lambda _: None))  # type: ignore[arg-type, return-value]
        self._probe = probe

    async def probe(self) -> Probe:
        return self._probe


async def examined(host: Any, kernel: Kernel | None = None) -> dict[str, Check]:
    drivers = Drivers([Driver(host.probe)])
    paths = Paths(Path("/root"), Path("/run"))
    return {c.name: c for c in await doctor.examine(drivers, kernel, paths, lambda _: BootFiles(KERNEL, KERNEL, 1.0))}


async def test_a_host_that_has_everything(host: Any) -> None:
    kernel = Kernel(path=Path("/kernel"), version="6.1.1", config_hash="c" * 64)
    checks = await examined(host, kernel)
    assert {c.status for c in checks.values()} == {"ok"}
    assert checks["kernel"].found == f"hyperkernel 6.1.1 ({'c' * 12}) at /kernel"
    assert checks["network"].found == "bridges of this host; user-mode network by QEMU's slirp"


@pytest.mark.parametrize(
    ("without", "check", "status", "hint"),
    [
        ({"missing": {"skopeo"}}, "skopeo", "fail", "install the package skopeo"),
        ({"missing": {"mkfs.ext4"}}, "mkfs.ext4", "fail", "install the package e2fsprogs"),
        ({"missing": {"nft"}}, "network", "warn", "install the package nftables"),
        ({"tun": False}, "network", "warn", "load the kernel module tun"),
        ({"uid": 1000}, "network", "warn", "install passt, or use --network none for code that must not"),
        ({"uid": 1000, "passt": "/usr/bin/passt"}, "network", "ok", ""),
        ({"free": (2 << 30) - 1}, "disk space", "warn", "free some, for example by `hyperctl image-prune -a`"),
        ({"free": 2 << 30}, "disk space", "ok", ""),
        ({"probe": Probe("", "", trouble="no QEMU", hint="install it")}, "fake", "fail", "install it"),
    ],
)
async def test_what_is_missing(host: Any, without: dict[str, Any], check: str, status: str, hint: str) -> None:
    vars(host).update(without)
    found = (await examined(host))[check]
    assert (found.status, found.hint) == (status, hint)


async def test_emulation_is_slow_and_no_accelerator_is_told_of_where_there_is_no_hypervisor(host: Any) -> None:
    host.probe = Probe("tcg", "there is no /dev/kvm")
    found = (await examined(host))["accelerator"]
    assert (found.status, found.found) == ("warn", "tcg: there is no /dev/kvm")
    host.probe = Probe("tcg", "", trouble="no QEMU")
    assert "accelerator" not in await examined(host)


async def test_kernels(host: Any) -> None:
    assert (await examined(host))["kernel"].status == "fail"
    own = (await examined(host, Kernel(path=Path("/k"), version="", config_hash="")))["kernel"]
    assert (own.status, own.found) == ("warn", "/k")


async def test_a_guest_program_that_was_not_built(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Path:
        raise NotFound("hyperstart is not built", hint="run hyperstart/build.py")

    monkeypatch.setattr(doctor, "hyperstart_path", missing)
    found = (await examined(host))["hyperstart"]
    assert (found.status, found.found, found.hint) == ("fail", "hyperstart is not built", "run hyperstart/build.py")
