# SPDX-License-Identifier: Apache-2.0
"""libvirt's own Python module: that of this environment, or Debian's, where it fits this Python.

It is a library in C, with a loop of its own for what connections bring. That runs in a thread, one for the whole
process, since the library has one such loop. https://libvirt.org/html/libvirt-libvirt-event.html
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.machinery
import importlib.util
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
_DEBIAN = Path("/usr/lib/python3/dist-packages")  # of python3-libvirt
_AGAIN = 1.0  # seconds until its loop is tried again


@functools.cache
def library() -> Any:
    """The module, with its loop under way; None where it is not installed."""
    module = _imported()
    if module is None:
        return None
    module.registerErrorHandler(lambda *_: None, None)  # else it prints what it raises, too
    module.virEventRegisterDefaultImpl()
    threading.Thread(target=_run, args=(module, threading.Event().wait), name="libvirt-events", daemon=True).start()
    return module


def errors() -> tuple[type[Exception], ...]:
    """What it raises."""
    module = library()
    return (module.libvirtError,) if module else ()


def version() -> str:
    """Of the library, "" where it is not installed; no daemon is asked."""
    module = library()
    if module is None:
        return ""
    return release(module.getVersion())


def release(number: int) -> str:
    """A version as the library has it: 1000000 * major + 1000 * minor + release."""
    return f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"


def _run(module: Any, pause: Callable[[float], object]) -> None:
    while True:
        try:
            module.virEventRunDefaultImpl()
        except module.libvirtError as error:
            log.warning("libvirt's event loop: %s", error)
            pause(_AGAIN)  # it may fail at once, and each time


def _imported() -> Any:
    with contextlib.suppress(ImportError):
        module = importlib.import_module("libvirt")
        if hasattr(module, "virEventRegisterDefaultImpl"):  # any directory of that name is a module, too
            return module
        del sys.modules["libvirt"]
    # Only these two files: the rest of Debian's modules are none of ours.
    for name in ("libvirtmod", "libvirt"):
        spec = importlib.machinery.PathFinder.find_spec(name, [str(_DEBIAN)])
        if spec is None or spec.loader is None:
            return None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except ImportError as error:
            del sys.modules[name]
            log.info("Debian's python3-libvirt does not fit: %s", error)
            return None
    return sys.modules["libvirt"]
