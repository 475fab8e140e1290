# SPDX-License-Identifier: Apache-2.0
"""An image with the init systems that Debian has: systemd, s6, runit, tini, dumb-init."""

from __future__ import annotations

import hashlib
from pathlib import Path

from . import images

_PACKAGES = "systemd,systemd-sysv,s6,execline,runit,tini,dumb-init"
_UNIT = """[Service]
ExecStart=/bin/sleep 1001
Restart=always
RestartSec=0
"""
_WANTED = """[Unit]
Wants=ours.service
"""


def inits() -> Path:
    """The OCI layout, made once; its program is systemd, with a unit of ours."""

    def make(layout: Path, scratch: Path) -> None:
        images._base(layout, scratch, _PACKAGES)
        for target, text in (("ours.service", _UNIT), ("multi-user.target.d/ours.conf", _WANTED)):
            file = scratch / "unit"
            file.write_text(text)
            images._insert(layout, file, f"/etc/systemd/system/{target}")
        config = ["--config.cmd", "/sbin/init", "--config.stopsignal", "SIGRTMIN+3"]
        images.run("umoci", "config", "--image", f"{layout}:test", *config)

    return images.cached(f"inits-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]}", make)
