# SPDX-License-Identifier: Apache-2.0
"""What lies below root and run is for the daemon's user; what another user put where we would look is not used."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from hypercontainer.client import autostart, base
from hypercontainer.engine.paths import Paths
from hypercontainer.errors import PermissionDenied, Unavailable
from hypercontainer.hyperd import config
from hypercontainer.state.database import Database
from hypercontainer.sys.files import copy_sparse, write_atomically


def open_to_others(top: Path) -> list[str]:
    """What has a bit for group or others; a directory volume's content is its containers', but nobody gets to it.

    The sockets of both APIs are not meant: they are a group's.
    """
    found = []
    for directory, directories, files in os.walk(top):
        for name in [*directories, *files]:
            path = Path(directory, name)
            meant = name in ("_data", "hyper.sock", "docker.sock")
            if not path.is_symlink() and path.lstat().st_mode & 0o077 and not meant:
                found.append(f"{path} {path.lstat().st_mode:o}")
        directories[:] = [d for d in directories if d != "_data"]
    return found


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "root", tmp_path / "run")


@pytest.fixture(autouse=True)
def usual_umask() -> object:
    old = os.umask(0o022)
    yield
    os.umask(old)


def test_new_trees_are_closed(paths: Paths, tmp_path: Path) -> None:
    paths.create()
    Database(paths.database).close()
    (tmp_path / "source").write_bytes(b"x" * 5000)
    copy_sparse(tmp_path / "source", paths.container("c"))
    write_atomically(paths.cache / "a/b", b"x")
    assert open_to_others(tmp_path / "root") + open_to_others(tmp_path / "run") == []
    assert stat.S_IMODE(paths.root.stat().st_mode) == stat.S_IMODE(paths.run.stat().st_mode) == 0o700


def test_the_database_is_closed_while_it_is_open(paths: Paths) -> None:
    paths.create()
    database = Database(paths.database)
    assert sorted(p.name for p in paths.root.glob("state.db*")) == ["state.db", "state.db-shm", "state.db-wal"]
    assert open_to_others(paths.root) == []
    database.close()


def test_old_trees_are_mended(paths: Paths, tmp_path: Path) -> None:
    data = paths.volume("v") / "_data"
    for path in (data, paths.volume("w"), paths.images / "blobs/sha256", paths.run / "pods/p"):
        path.mkdir(parents=True)
    files = [
        paths.database,
        paths.volume("w") / "volume.img",
        paths.images / "blobs/sha256/x",
        paths.run / "pods/p/console.log",
    ]
    for file in files:
        file.write_text("secret")
        file.chmod(0o644)
    (data / "program").write_text("#!")
    (data / "program").chmod(0o4755)
    outside = tmp_path / "outside"
    outside.write_text("not ours")
    outside.chmod(0o666)
    (paths.images / "link").symlink_to(outside)
    paths.create()
    assert open_to_others(paths.root) + open_to_others(paths.run) == []
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o700 for p in (paths.root, paths.run, paths.volume("v")))
    # Users of the guest need the first, and what is in it is theirs.
    assert stat.S_IMODE(data.stat().st_mode) == 0o755 and stat.S_IMODE((data / "program").stat().st_mode) == 0o4755
    assert stat.S_IMODE(outside.stat().st_mode) == 0o666


def test_a_directory_that_is_not_ours_alone_keeps_its_mode(tmp_path: Path) -> None:
    """`--root /srv`, where other things are, too."""
    shared = tmp_path / "srv"
    shared.mkdir(mode=0o755)
    (shared / "other").write_text("")
    (shared / "other").chmod(0o644)
    Paths(shared, shared).create()
    assert stat.S_IMODE(shared.stat().st_mode) == 0o755 and stat.S_IMODE((shared / "other").stat().st_mode) == 0o644
    assert [p for p in open_to_others(shared) if "/other " not in p] == []


@pytest.mark.parametrize("squat", ["directory of another", "link", "file", "open to others", "missing", "ours"])
def test_a_squatted_runtime_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, squat: str) -> None:
    """Without XDG_RUNTIME_DIR a user's sockets lie in /tmp, where anybody may have been first."""
    if os.geteuid() != 0:
        pytest.skip("making another user's directory needs root")
    user = 54321
    path = Path(f"/tmp/hyper-{user}")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("HYPER_HOST", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os, "getuid", lambda: user)
    assert not os.path.lexists(path)
    try:
        if squat == "link":
            path.symlink_to(tmp_path)
            os.lchown(path, user, user)
            os.chown(tmp_path, user, user)
        elif squat == "file":
            path.touch(mode=0o700)
            os.chown(path, user, user)
        elif squat != "missing":
            path.mkdir(mode=0o700)
            os.chown(path, 0 if squat == "directory of another" else user, user)
            path.chmod(0o777 if squat == "open to others" else 0o700)
        if squat in ("missing", "ours"):
            assert config.default_run() == path and base.default_socket() == f"{path}/hyper.sock"
            return
        for look in (config.default_run, base.default_socket):
            with pytest.raises(PermissionDenied, match=f"{path} .*remove it, or set XDG_RUNTIME_DIR"):
                look()
    finally:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        elif os.path.lexists(path):
            path.unlink()


def test_the_log_of_a_daemon_that_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It may name arguments and addresses of containers."""
    log = tmp_path / "logs/hyperd.log"
    monkeypatch.setattr(autostart, "_log_file", lambda: log)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    for _ in range(2):
        with pytest.raises(Unavailable, match="hyperd could not be started"):
            autostart.start()
        assert stat.S_IMODE(log.stat().st_mode) == 0o600 and stat.S_IMODE(log.parent.stat().st_mode) == 0o700
        log.chmod(0o644)  # as earlier versions left it
