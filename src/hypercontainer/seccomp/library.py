# SPDX-License-Identifier: Apache-2.0
"""libseccomp: rules become a program for a kernel's seccomp, whichever processor this host has.

The library is called by the names and numbers of its seccomp.h (seccomp_init(3), seccomp_rule_add(3),
seccomp_export_bpf(3)). A call is named by the host's number, or one of the library's own (below zero) where the
host has none; the library finds the number of each architecture by it.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple

from ..errors import InvalidArgument, Unavailable

_OPTIMIZE, _BINARY_TREE = 8, 2  # SCMP_FLTATR_CTL_OPTIMIZE
_API_LEVEL = 3  # with SCMP_ACT_LOG and SCMP_ACT_KILL_PROCESS: of the guest's kernel, not of this host's
_NO_SUCH_CALL = -1  # __NR_SCMP_ERROR


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


class Rule(NamedTuple):
    """What is done with a call whose arguments are so."""

    name: str
    action: int
    comparisons: tuple[tuple[int, int, int, int], ...] = ()  # argument, operator, two values


@functools.cache
def _library() -> Any:
    """:raise Unavailable: this host has none."""
    try:
        found = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise Unavailable("a seccomp profile of one's own takes libseccomp, which this host does not have",
                          hint="install libseccomp2, or leave the profile out") from None  # fmt: skip
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_init.argtypes = [ctypes.c_uint32]
    found.seccomp_release.argtypes = [ctypes.c_void_p]
    found.seccomp_arch_native.restype = ctypes.c_uint32
    found.seccomp_arch_add.argtypes = found.seccomp_arch_remove.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    found.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    found.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    found.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    found.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Comparison),
    ]  # fmt: skip
    found.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    found.seccomp_api_set.argtypes = [ctypes.c_uint]
    found.seccomp_api_set(_API_LEVEL)
    return found


def number_of(architecture: int, name: str) -> int:
    """Of a call, below zero where this architecture has none of that name."""
    return int(_library().seccomp_syscall_resolve_name_arch(architecture, name.encode()))


class Rules:
    """A filter while it is made; `architectures` are the library's numbers (AUDIT_ARCH_*, and one of x32)."""

    def __init__(self, default: int, architectures: Sequence[int]) -> None:
        self._default = default
        self._architectures = architectures
        self._context: int | None = None

    def __enter__(self) -> Rules:
        library = _library()
        self._context = library.seccomp_init(self._default)
        if not self._context:
            raise Unavailable("libseccomp makes no filter: there is no memory for it")
        for architecture in self._architectures:
            if (code := library.seccomp_arch_add(self._context, architecture)) not in (0, -errno.EEXIST):
                self._release()
                raise InvalidArgument(f"libseccomp cannot add an architecture: {os.strerror(-code)}")
        if (native := library.seccomp_arch_native()) not in self._architectures:
            library.seccomp_arch_remove(self._context, native)
        library.seccomp_attr_set(self._context, _OPTIMIZE, _BINARY_TREE)  # one before 2.5 makes a list
        return self

    def __exit__(
        self, type_: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        _library().seccomp_release(self._context)
        self._context = None

    def add(self, rule: Rule) -> None:
        """A call that no processor has under this name is passed over, as runc does.

        :raise InvalidArgument: it cannot be beside the others.
        """
        number = _library().seccomp_syscall_resolve_name(rule.name.encode())
        if number == _NO_SUCH_CALL:
            return
        array = (Comparison * len(rule.comparisons))(*(Comparison(*c) for c in rule.comparisons))
        code = _library().seccomp_rule_add_array(self._context, rule.action, number, len(array), array)
        if code == -errno.EEXIST:
            raise InvalidArgument(f"the seccomp profile has rules for {rule.name} that contradict each other")
        if code:
            raise InvalidArgument(f"the seccomp profile's rule for {rule.name} is not possible: {os.strerror(-code)}")

    def program(self) -> bytes:
        """An array of struct sock_filter. :raise InvalidArgument: the rules make none."""
        with open(os.memfd_create("filter", os.MFD_CLOEXEC), "r+b", buffering=0) as file:
            if code := _library().seccomp_export_bpf(self._context, file.fileno()):
                raise InvalidArgument(f"the seccomp profile makes no program: {os.strerror(-code)}")
            file.seek(0)
            return file.read()
