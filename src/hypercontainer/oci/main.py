# SPDX-License-Identifier: Apache-2.0
"""The entry point of hyper-runtime."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from argparse import Namespace
from collections.abc import Callable

from ..client.base import default_socket
from ..errors import HyperError, NotFound
from .arguments import parser
from .complaints import complain
from .daemon import Daemon
from .records import Records

# Of which module each verb is: what it does not need is not imported.
_MODULES = {
    "creation": ("create", "run"),
    "lifecycle": ("start", "kill", "delete", "pause", "resume", "update"),
    "execs": ("exec",),
    "reports": ("state", "list", "ps", "events", "features", "spec"),
}
_KEYWORDS = ("exec", "list")  # whose functions end with `_`


def _verb(name: str) -> Callable[[Namespace, Daemon, Records], int]:
    module = next(module for module, verbs in _MODULES.items() if name in verbs)
    found = importlib.import_module(f".{module}", __package__)
    function: Callable[[Namespace, Daemon, Records], int] = getattr(found, name + "_" * (name in _KEYWORDS))
    return function


def _daemon(args: Namespace, records: Records) -> Daemon:
    """The one that has the container, or of a new one that which is named."""
    if not args.hyper_host and args.verb not in ("create", "run") and "id" in args:
        with contextlib.suppress(NotFound):
            return Daemon(records.get(args.id).host)
    return Daemon(args.hyper_host or default_socket())


def main() -> None:
    """The only place that prints errors and exits."""
    args = parser().parse_args()
    status = 1
    try:
        records = Records(args.root)
        status = _verb(args.verb)(args, _daemon(args, records), records)
        sys.stdout.flush()
    except HyperError as error:
        complain(args, str(error))
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        status = 141
    except OSError as error:
        complain(args, f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if os.environ.get("HYPER_TRACEBACK"):
            raise
        complain(args, f"what was given is not as the specification has it: {type(error).__name__}: {error}")
    os._exit(status)
