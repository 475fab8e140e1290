# SPDX-License-Identifier: Apache-2.0
"""cp out of a container whose root wants this host's files; real machines."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

from .conftest import BIN, DEADLINE, Daemon

# `results` changes between the copies: what was a link is then a file of the same name, and a file in a
# linked directory.
FIRST = (
    "mkdir -p /srv/results && cd /srv/results && ln -s {victim}/file f && ln -s {victim} d && ln f same "
    "&& cp /bin/busybox su && chmod 6755 su"
)
SECOND = (
    "cd /srv/results && rm f d && echo evil > f && mkdir d && echo evil > d/file "
    "&& mkdir /srv/.ssh && echo evil > /srv/.ssh/authorized_keys"
)


def test_links_that_an_earlier_copy_left(hyper: Daemon, tmp_path: Path) -> None:
    victim, home = tmp_path / "victim", tmp_path / "home"
    victim.mkdir()
    home.mkdir()
    (victim / "file").write_text("precious")
    hyper.ctl("run", "-d", "--name", "evil", "busybox", "sleep", "1000")
    hyper.ctl("exec", "evil", "sh", "-c", FIRST.format(victim=victim))
    hyper.ctl("cp", "evil:/srv/results", home)
    assert (home / "results/f").is_symlink() and os.listdir(victim) == ["file"]
    assert stat.S_IMODE((home / "results/su").stat().st_mode) & 0o7000 == 0
    hyper.ctl("exec", "evil", "sh", "-c", SECOND)
    second = hyper.ctl("cp", "evil:/srv/results", home, check=False)
    assert second.returncode == 1 and "'results/d'" in second.stderr and "remove it first" in second.stderr
    hyper.ctl("cp", "evil:/srv/results/f", home / "results")
    hyper.ctl("cp", "evil:/srv/results/f", home / "results/same")
    assert (home / "results/f").read_text() == (home / "results/same").read_text() == "evil\n"
    assert (victim / "file").read_text() == "precious" and os.listdir(victim) == ["file"]
    # A link of the container's is followed there, never here, and goes by the name that was asked for.
    hyper.ctl("exec", "evil", "ln", "-s", ".ssh", "/srv/keys")
    hyper.ctl("cp", "-L", "evil:/srv/keys", home)
    assert (home / "keys/authorized_keys").read_text() == "evil\n" and not (home / ".ssh").exists()


def test_a_reader_of_export_that_has_gone(hyper: Daemon) -> None:
    hyper.ctl("create", "--name", "whole", "busybox", "true")
    for verb in (["export", "whole"], ["cp", "whole:/bin", "-"]):
        process = subprocess.Popen(
            [BIN / "hyperctl", *verb], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=hyper.environment
        )
        assert process.stdout and process.stderr and process.stdout.read(100)
        process.stdout.close()
        with process.stderr as errors:
            said = errors.read()
        assert process.wait(DEADLINE) == 141 and said == b""
