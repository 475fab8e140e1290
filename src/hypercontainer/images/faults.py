# SPDX-License-Identifier: Apache-2.0
"""What a disk that cannot be written to says, as one sentence."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from ..errors import Unavailable
from ..sys.files import no_space

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM)
_KNOWN = {
    errno.EROFS: ("its file system is read-only", "mount it writable"),
    errno.EACCES: ("permission denied", "let hyperd's user write to it"),
    errno.EPERM: ("permission denied", "let hyperd's user write to it"),
    errno.EIO: ("the disk answers with an error", "see the kernel's log"),
    errno.EMFILE: ("too many open files", "raise hyperd's limit of open files"),
}


@contextlib.contextmanager
def storage_faults(root: Path) -> Iterator[None]:
    """Turn what the store's disk refuses into an error that names it.

    :raise NoSpace: it is full. :raise Unavailable: it is read-only, not ours, or broken.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise no_space(root) from error
        elsewhere = error.filename is None or not str(error.filename).startswith(str(root))
        if error.errno not in _KNOWN or (error.errno in _DENIED and elsewhere):
            raise
        why, hint = _KNOWN[error.errno]
        raise Unavailable(f"the image store {root} cannot be written: {why}", hint=hint) from error
