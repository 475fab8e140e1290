# SPDX-License-Identifier: Apache-2.0
"""The entry point of hyperctl.

The commonest calls take the quick way, which imports little; click reads the
others, and everything that the quick way does not understand.
"""

from __future__ import annotations

import os
import sys

from ..client.contexts import enter
from ..errors import HyperError, StartFailed
from .quick import quick, split, split_all
from .standard import complain, finish, prepare, stdout_fails, trouble

_OF_NO_CONTEXT = ("completion", "context", "")


def exit_status(error: HyperError, verb: str) -> int:
    """Docker's: 126 and 127 for the program, 125 for ours in run, 1 elsewhere."""
    if isinstance(error, StartFailed):
        return error.exit_status
    return 125 if verb == "run" else 1


def _status(args: list[str]) -> int:
    context, host, verb, _ = split_all(args)
    cluster = None if verb in _OF_NO_CONTEXT else enter(context, host)
    status = None if cluster is not None else quick(args)
    if status is None:
        from .cli import run

        status = run(args, cluster)
    return status


def _explained(error: Exception) -> str:
    """One sentence for what no command has dealt with."""
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object[:200]!s} is not UTF-8: containers' names, arguments and paths must be"
    if isinstance(error, UnicodeDecodeError):
        return "a file that was read is not UTF-8: convert it"
    if isinstance(error, OSError):
        names = (os.fsdecode(n) for n in (error.filename, error.filename2) if isinstance(n, (str, bytes)))
        where = " and ".join(names)
        return trouble(error) or (f"{where}: " if where else "") + (error.strerror or str(error))
    return f"{type(error).__name__}: {error}: this is a defect of hyperctl; HYPER_TRACEBACK=1 shows where"


def _guarded(args: list[str]) -> int:
    stdout = sys.stdout
    try:
        return _status(args)
    except HyperError as error:
        complain(str(error))
        return exit_status(error, split(args)[1])
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    except (
        SystemExit
    ) as error:  # click's: it wraps stdout when nobody reads that any more, and answers a shell's completion
        return 141 if sys.stdout is not stdout else int(error.code or 0)
    except Exception as error:
        if os.environ.get("HYPER_TRACEBACK"):
            raise
        if not (isinstance(error, OSError) and stdout_fails()):
            complain(_explained(error))
        return 125 if split(args)[1] == "run" else 1


def main() -> None:
    """The only place that prints errors and exits."""
    prepare()
    status = finish(_guarded(sys.argv[1:]))
    # Nothing is left to be tidied up, and the interpreter takes its time for that.
    os._exit(status)
