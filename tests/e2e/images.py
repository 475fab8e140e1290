# SPDX-License-Identifier: Apache-2.0
"""Real images for the tests: Debian's packages by mmdebstrap, layers by umoci.

An image takes half a minute to make and is cached by the text of this file.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

from hypercontainer.sys import caches

from .keeping import kept


def cache_directory() -> Path:
    return caches.cache_directory("test-images") / hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]


def run(*args: str | Path) -> None:
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{args}\n{done.stdout}\n{done.stderr}"


def cached(name: str, make: Callable[[Path, Path], None]) -> Path:
    """The layout of that name; made by `make(layout, scratch)` when it is not there."""
    return kept(cache_directory() / name, make)


def _base(layout: Path, scratch: Path, packages: str) -> None:
    """A layout with one layer: a minimal Debian and some packages."""
    rootfs = scratch / "rootfs.tar"
    run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", "bookworm", rootfs)
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:test")
    run("umoci", "raw", "add-layer", "--image", f"{layout}:test", rootfs)


def _insert(layout: Path, source: Path, target: str, *options: str) -> None:
    run("umoci", "insert", "--image", f"{layout}:test", *options, source, target)


def nginx() -> Path:
    """Five layers, with a whiteout, an opaque directory and an added file."""

    def make(layout: Path, scratch: Path) -> None:
        _base(layout, scratch, "nginx-light,libcap2-bin,iputils-ping")
        image = f"{layout}:test"
        run("umoci", "insert", "--image", image, "--whiteout", "/usr/share/doc")
        site = scratch / "site"
        site.mkdir()
        (site / "index.html").write_text("<h1>hyper</h1>\n")
        _insert(layout, site, "/var/www/html", "--opaque")
        conf = scratch / "foreground.conf"
        conf.write_text("daemon off;\nerror_log /dev/stderr;\n")
        _insert(layout, conf, "/etc/nginx/modules-enabled/99-foreground.conf")
        run("umoci", "insert", "--image", image, "--whiteout", "/etc/nginx/nginx.conf.none")
        run(
            "umoci",
            "config",
            "--image",
            image,
            "--config.cmd",
            "nginx",
            "--config.exposedports",
            "80/tcp",
            "--config.stopsignal",
            "SIGQUIT",
        )

    return cached("nginx", make)


def databases() -> Path:
    """redis and postgres in one image, with an entry point for each."""

    def make(layout: Path, scratch: Path) -> None:
        _base(layout, scratch, "redis-server,postgresql,postgresql-contrib")
        script = scratch / "start-postgres"
        script.write_text(
            "#!/bin/sh\nset -e\nb=/usr/lib/postgresql/15/bin\nexport PGDATA=/srv/pgdata\n"
            "[ -e $PGDATA/PG_VERSION ] || $b/initdb -A trust >/dev/null\n"
            "exec $b/postgres -c listen_addresses='*' -c unix_socket_directories=/tmp -c shared_buffers=16MB\n"
        )
        script.chmod(0o755)
        _insert(layout, script, "/usr/local/bin/start-postgres")
        srv = scratch / "srv"
        srv.mkdir(mode=0o777)
        srv.chmod(0o777)
        _insert(layout, srv, "/srv", "--opaque")

    return cached("databases", make)
