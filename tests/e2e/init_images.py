# SPDX-License-Identifier: Apache-2.0
"""An image with the init systems that Debian has: systemd, runit, tini, dumb-init."""

from __future__ import annotations

import hashlib
from pathlib import Path

from . import images

_PACKAGES = "systemd,systemd-sysv,runit,tini,dumb-init"
_UNIT = """[Service]
ExecStart=/bin/sleep 1001
Restart=always

[Install]
WantedBy=multi-user.target
"""


def inits() -> Path:
    """The OCI layout, made once; its program is systemd, with a unit of ours."""

    def make(layout: Path, scratch: Path) -> None:
        images._base(layout, scratch, _PACKAGES)
        unit = scratch / "ours.service"
        unit.write_text(_UNIT)
        for target in ("ours.service", "multi-user.target.wants/ours.service"):
            images._insert(layout, unit, f"/etc/systemd/system/{target}")
        config = ["--config.cmd", "/sbin/init", "--config.stopsignal", "SIGRTMIN+3"]
        images.run("umoci", "config", "--image", f"{layout}:test", *config)

    return images.cached(f"inits-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]}", make)
