# SPDX-License-Identifier: Apache-2.0
"""nft's language without a process for it: libnftables(3), or the program where there is no library.

A change of a few elements takes 0.2 ms by the library, whatever the size of
the sets, and 20 ms by the program.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import threading

from ..errors import Unavailable
from ..sys.process import run

_LIBRARY = "libnftables.so.1"


class _Library:
    """One context of libnftables, for one thread at a time.

    It opens its socket in the network namespace of the thread that asks.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        library.nft_ctx_new.restype, library.nft_ctx_new.argtypes = pointer, [ctypes.c_uint32]
        library.nft_ctx_buffer_error.argtypes = library.nft_ctx_buffer_output.argtypes = [pointer]
        library.nft_ctx_get_error_buffer.restype, library.nft_ctx_get_error_buffer.argtypes = text, [pointer]
        library.nft_run_cmd_from_buffer.argtypes = [pointer, text]
        self._library = library
        self._context = library.nft_ctx_new(0)
        self._lock = threading.Lock()
        library.nft_ctx_get_output_buffer.restype, library.nft_ctx_get_output_buffer.argtypes = text, [pointer]
        for buffered in (library.nft_ctx_buffer_error, library.nft_ctx_buffer_output):
            if not self._context or buffered(self._context):
                raise OSError("libnftables has no memory")

    def run(self, text: str) -> tuple[str, str]:
        """One transaction; the complaint, "" when the kernel has taken it, and what was asked for."""
        with self._lock:
            status = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
            words: bytes = self._library.nft_ctx_get_error_buffer(self._context)  # which empties it
            told: bytes = self._library.nft_ctx_get_output_buffer(self._context)
        refused = (words.decode(errors="replace").strip() or "no reason given") if status else ""
        return refused, told.decode(errors="replace")


@functools.cache
def _library() -> _Library | None:
    try:
        return _Library(ctypes.CDLL(_LIBRARY))
    except (OSError, AttributeError):
        return None


async def apply(text: str) -> str:
    """One transaction: all of it or nothing; what its `list` commands print.

    :raise Unavailable: with the kernel's or nft's reason.
    """
    if library := _library():
        refused, told = await asyncio.to_thread(library.run, text)
    else:
        refused, told = await _by_program(text)
    if refused:
        first = refused.splitlines()[0]
        raise Unavailable(
            f"nftables refused the rules: {first}",
            hint="may hyperd change them, and is the package nftables installed?",
        )
    return told


async def _by_program(text: str) -> tuple[str, str]:
    """As the library's."""
    try:
        done = await run("nft", "-f", "-", stdin=text.encode())
    except OSError as error:  # the host has no more processes, say
        return str(error), ""
    return (done.stderr.strip() or "no reason given") if done.status else "", done.stdout
