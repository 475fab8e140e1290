# SPDX-License-Identifier: Apache-2.0
"""--security-opt, and what becomes of it in the guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypercontainer.engine import resolve
from hypercontainer.errors import InvalidArgument
from hypercontainer.hyperctl.options import _security
from hypercontainer.model.specs import ContainerSpec, ExecSpec
from hypercontainer.model.status import Container, Pod, Process
from hypercontainer.protocol.constants import Seccomp


def test_options() -> None:
    assert _security(()) == {}
    assert _security(("no-new-privileges", "seccomp=unconfined")) == {
        "no_new_privileges": True,
        "seccomp": "unconfined",
        "seccomp_profile": "",
    }
    assert _security(("seccomp=unconfined", "seccomp=builtin", "no-new-privileges:false")) == {
        "seccomp": "default",
        "seccomp_profile": "",
        "no_new_privileges": False,
    }
    with pytest.raises(InvalidArgument, match="AppArmor"):
        _security(("apparmor=mine",))


def test_a_profile_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text('{"defaultAction":"SCMP_ACT_ALLOW"}')
    for option in (f"seccomp={file}", f"seccomp:{file}"):
        assert _security((option,)) == {"seccomp": "default", "seccomp_profile": file.read_text()}
    assert _security((f"seccomp={file}", "seccomp=unconfined"))["seccomp_profile"] == ""
    file.write_bytes(b"\xff")
    with pytest.raises(InvalidArgument, match="is no text"):
        _security((f"seccomp={file}",))


_POD = Pod(id="p", name="p", created_at="", hostname="p", vcpus=1, memory=1)


@pytest.mark.parametrize(
    ("how", "exec_privileged", "main", "further", "devices"),
    [
        ({}, False, Seccomp.DEFAULT, Seccomp.DEFAULT, False),
        ({}, True, Seccomp.DEFAULT, Seccomp.UNCONFINED, False),
        ({"privileged": True}, False, Seccomp.UNCONFINED, Seccomp.UNCONFINED, True),
        ({"seccomp": "unconfined"}, False, Seccomp.UNCONFINED, Seccomp.UNCONFINED, False),
    ],
)
def test_what_the_guest_is_told(
    how: dict[str, object], exec_privileged: bool, main: Seccomp, further: Seccomp, devices: bool
) -> None:
    spec = ContainerSpec(image="x", **how)  # type: ignore[arg-type]
    process = Process(args=["true"], env=[], cwd="/", user="", stop_signal=15)
    container = Container(
        id="c" * 64, name="c", pod="p", created_at="", image="x", image_id="i", hostname="c", process=process, spec=spec
    )
    assert resolve.main_process(_POD, container, (0, 0)).seccomp is main
    assert (
        resolve.exec_process(container, ExecSpec(command=["true"], privileged=exec_privileged), (0, 0)).seccomp
        is further
    )
    assert resolve.guest_container(container, 1 << 30, "i", "s", (), ()).devices is devices
