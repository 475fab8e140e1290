# SPDX-License-Identifier: Apache-2.0
"""A node is set up, and as before when that is taken away: in a copy of this host's files of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.node_payload import own_wheel, pip_wheel

from .conftest import DEADLINE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts take root")
DEPLOY = Path(__file__).parents[2] / "deploy"
_CONFIG = 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "x"\n'
_SCRIPT = """
set -eu
cd "$1"
mount -t tmpfs none top
mkdir top/upper top/work top/root
mount -t overlay none -o lowerdir=/,upperdir=top/upper,workdir=top/work top/root
mount -t proc none top/root/proc
mount --rbind /dev top/root/dev
mount -t tmpfs none top/root/run
mkdir -p top/root/payload top/root/etc/containerd top/root/etc/crio
cp -r payload/. top/root/payload
rm -rf top/root/opt/hypercontainer top/root/etc/crio/crio.conf.d/10-hyper.conf top/root/etc/hyper
cp config.toml top/root/etc/containerd/config.toml
chmod 640 top/root/etc/containerd/config.toml
node() { chroot top/root sh /payload/deploy/node/node.sh "$@" >>said 2>&1; }
node install /payload
cp top/root/etc/containerd/config.toml changed.toml
chroot top/root hyper-runtime
test -e top/root/etc/crio/crio.conf.d/10-hyper.conf
cat top/root/etc/hyper/hyperd.toml
echo again >>said
node install /payload
echo newer >>said
cp -r newer/. top/root/payload
node install /payload
mkdir top/root/run/hyper
chroot top/root python3 -c 'import socket; socket.socket(1).bind("/run/hyper/hyper.sock")'
if node remove; then exit 1; fi
rm top/root/run/hyper/hyper.sock
node remove
cmp config.toml top/root/etc/containerd/config.toml
test ! -e top/root/opt/hypercontainer
test ! -e top/root/etc/crio/crio.conf.d/10-hyper.conf
test ! -e top/root/etc/systemd/system/hyperd.service
test ! -h top/root/usr/local/bin/hyperd
stat -c %a top/root/etc/containerd/config.toml
echo 'version = 3' >top/root/etc/containerd/config.toml
! node install /payload
rm -r top/root/etc/crio top/root/etc/containerd/config.toml
! node install /payload
test ! -e top/root/opt/hypercontainer
rm -r payload/deploy top/root/payload/deploy/containerd
! node install /nowhere
"""


def test_a_node_is_set_up_and_left(tmp_path: Path) -> None:
    payload = tmp_path / "payload"
    shutil.copytree(DEPLOY, payload / "deploy", ignore=shutil.ignore_patterns("wheels"))
    (tmp_path / "top").mkdir()
    (tmp_path / "config.toml").write_text(_CONFIG)
    own_wheel(payload, 0)
    (tmp_path / "newer").mkdir()
    own_wheel(tmp_path / "newer", 1)
    shutil.copy(pip_wheel(), payload)
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT, "sh", tmp_path]
    path = os.pathsep.join(("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False,
                          env={"PATH": f"{path}", "HOME": "/root"})  # fmt: skip
    said = (tmp_path / "said").read_text()
    assert done.returncode == 0, done.stderr + said
    assert done.stdout == "it runs\nlive_restore = true\n640\n"
    changed = (tmp_path / "changed.toml").read_text()
    assert changed.startswith(_CONFIG) and (DEPLOY / "containerd/hyper.toml").read_text() in changed
    first, rest = said.split("again\n")
    again, newer = rest.split("newer\n")
    assert "not done: systemctl restart containerd" in first and "not done: systemctl enable --now hyperd" in first
    assert "restart" not in again  # what is as it should be is left alone
    newer, _, removed = newer.partition("containers run here: drain the node")
    assert newer.count("restart") == 1 and "not done: systemctl try-restart hyperd" in newer
    assert "not done: systemctl restart containerd" in removed
    assert "config.toml is not of version 2, which" in removed
    assert "there is neither /etc/containerd/config.toml" in removed
    assert "install needs a directory with wheels and deploy/" in removed
