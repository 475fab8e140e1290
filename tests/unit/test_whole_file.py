# SPDX-License-Identifier: Apache-2.0
"""Files that hyperctl writes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hypercontainer.errors import HyperError
from hypercontainer.hyperctl.whole_file import written


def test_what_has_secrets_is_its_owners_only(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        for name, private in (("secret", True), ("image", False)):
            with written(str(tmp_path / name), private=private) as out:
                out.write(b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "image").stat().st_mode & 0o777 == 0o644


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    with written(str(pipe)) as out:
        out.write(b"x")
    reader.join(10)
    assert read == [b"x"] and pipe.is_fifo() and os.listdir(tmp_path) == ["pipe"]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError), written(str(tmp_path / "x")):
        raise ValueError
    with pytest.raises(HyperError, match="Is a directory"), written(str(tmp_path)):
        pass
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("private", [False, True])
def test_who_is_killed_leaves_nothing(private: bool, tmp_path: Path) -> None:
    program = (f"import os; from hypercontainer.hyperctl.whole_file import written\n"
               f"with written({str(tmp_path / 'x')!r}, private={private}) as out:\n"
               f"    out.write(b'x' * 1000000); os.kill(os.getpid(), 9)")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert not os.listdir(tmp_path)


def test_where_files_have_names_from_the_first_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS."""
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)
    with written(str(tmp_path / "x")) as out:
        out.write(b"x")
        assert os.listdir(tmp_path) == [f"x.{os.getpid()}.part"]
    with pytest.raises(ValueError), written(str(tmp_path / "x")):
        raise ValueError
    assert os.listdir(tmp_path) == ["x"] and (tmp_path / "x").read_bytes() == b"x"
