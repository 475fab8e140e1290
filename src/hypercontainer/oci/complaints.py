# SPDX-License-Identifier: Apache-2.0
"""What this runtime says when something is wrong: on stderr, which callers read, and in --log, which others do."""

from __future__ import annotations

import contextlib
import json
import sys
from argparse import Namespace


def complain(args: Namespace, text: str, level: str = "error") -> None:
    """One line of each; that nobody takes it is no trouble."""
    with contextlib.suppress(OSError):
        print(f"hyper-runtime: {'' if level == 'error' else f'{level}: '}{text}", file=sys.stderr, flush=True)
    if not args.log:
        return
    import datetime

    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    line = json.dumps({"level": level, "msg": text, "time": now})
    if args.log_format == "text":
        line = f"time={json.dumps(now)} level={level} msg={json.dumps(text)}"
    with contextlib.suppress(OSError), open(args.log, "a") as log:
        log.write(line + "\n")
