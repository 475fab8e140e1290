# SPDX-License-Identifier: Apache-2.0
"""Sent into a sandbox as it is: runs Python code that comes on stdin, with state in between, and tells what it gives.

A line of JSON each. To it: {"id", "code", "timeout"} (seconds). From it, on the stdout that it was started with:

    {"ready": "jupyter" | "plain"}
    {"id", "stdout" | "stderr": text}
    {"id", "result": {media type: value}, "main": whether it is the value of the last expression}
    {"id", "error": {"name", "value", "traceback"}}
    {"id", "done": true}

By Jupyter's kernel where `jupyter_client` and `ipykernel` are, else in this process. It needs Python 3.7 and nothing
else; what it says of a table is the same with both.
"""

from __future__ import annotations

import ast
import asyncio
import base64
import importlib
import inspect
import itertools
import json
import os
import queue
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

TABLE = "application/vnd.hypercontainer.table+json"
_ROWS = 10000  # of a table that are told
_STEP = 1.0  # seconds in which a kernel's silence is looked at
_COLOURS = re.compile("\x1b\\[[0-9;]*m")
SOURCE, WANTED = globals().get("SOURCE", ""), globals().get("WANTED", "auto")  # from who executes this: itself, and how
_METHODS = {
    "_repr_html_": "text/html", "_repr_markdown_": "text/markdown", "_repr_svg_": "image/svg+xml",
    "_repr_png_": "image/png", "_repr_jpeg_": "image/jpeg", "_repr_latex_": "text/latex",
    "_repr_json_": "application/json",
}  # fmt: skip


class Teller:
    """Lines for who asked; threads may tell."""

    def __init__(self, out: int) -> None:
        self.id = 0
        self._out = out
        self._lock = threading.Lock()

    def tell(self, **what: Any) -> None:
        data = (json.dumps({"id": self.id, **what}, default=str) + "\n").encode()
        with self._lock:
            while data:
                data = data[os.write(self._out, data) :]


class Captured:
    """What is written to a descriptor, by whomever, is told as it comes."""

    def __init__(self, fd: int, name: str, teller: Teller) -> None:
        self._fd, self._name, self._teller = fd, name, teller
        self._mark = f"\0{os.getpid()}-{name}\0".encode()
        self._seen = threading.Event()
        reads, writes = os.pipe()
        os.dup2(writes, fd)
        os.close(writes)
        threading.Thread(target=self._follow, args=(reads,), daemon=True).start()

    def _follow(self, reads: int) -> None:
        rest = b""
        while True:
            data = os.read(reads, 65536)
            if not data:
                return
            rest += data
            while self._mark in rest:
                before, _, rest = rest.partition(self._mark)
                self._say(before)
                self._seen.set()
            cut = len(rest) - _begun(rest, self._mark)
            cut -= _unfinished(rest[:cut])
            self._say(rest[:cut])
            rest = rest[cut:]

    def _say(self, data: bytes) -> None:
        if data:
            self._teller.tell(**{self._name: data.decode("utf-8", "replace")})

    def drain(self) -> None:
        """All that was written before has been told."""
        self._seen.clear()
        os.write(self._fd, self._mark)
        self._seen.wait(10)


def _begun(data: bytes, mark: bytes) -> int:
    """Of how many bytes at the end the mark may become."""
    return next((n for n in range(min(len(mark), len(data)), 0, -1) if data.endswith(mark[:n])), 0)


def _unfinished(data: bytes) -> int:
    """Bytes of a character of UTF-8 whose end has not come."""
    for n in range(1, min(4, len(data)) + 1):
        byte = data[-n]
        if byte >= 0xC0:
            return n if n < 2 + (byte >= 0xE0) + (byte >= 0xF0) else 0
        if byte < 0x80:
            return 0
    return 0


def table(value: Any) -> dict[str, Any] | None:
    """Of what looks like a data frame: its columns and rows."""
    if not all(hasattr(value, name) for name in ("columns", "itertuples", "shape")):
        return None
    rows = [list(row) for row in itertools.islice(value.itertuples(index=False), _ROWS)]
    return {"columns": [str(c) for c in value.columns], "rows": rows, "count": int(value.shape[0])}


def bundle(value: Any) -> dict[str, Any]:
    """A value by media types, as IPython's display has it."""
    found: dict[str, Any] = {"text/plain": repr(value)}
    for method, kind in _METHODS.items():
        shown = _called(value, method)
        if shown is not None:
            found[kind] = base64.b64encode(shown).decode() if isinstance(shown, bytes) else shown
    shown = _called(value, "_repr_mimebundle_")
    found.update(shown if isinstance(shown, dict) else {})
    rows = _quiet(lambda: table(value))
    if rows is not None:
        found[TABLE] = rows
    return found


def _called(value: Any, method: str) -> Any:
    function = None if isinstance(value, type) else getattr(value, method, None)
    found = _quiet(function) if callable(function) else None
    return found[0] if isinstance(found, tuple) else found


def _quiet(function: Callable[[], Any]) -> Any:
    """What cannot be shown in one way is shown in another."""
    try:
        return function()
    except Exception:
        return None


class Plain:
    """Code that runs in this process."""

    name = "plain"

    def __init__(self, teller: Teller) -> None:
        self._teller = teller
        self._loop = asyncio.new_event_loop()
        self._space: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__, "display": self.display}
        self._outputs = [Captured(1, "stdout", teller), Captured(2, "stderr", teller)]
        for stream in (sys.stdout, sys.stderr):
            getattr(stream, "reconfigure", lambda **_: None)(line_buffering=True)
        os.environ.setdefault("MPLBACKEND", "Agg")
        signal.signal(signal.SIGALRM, self._late)

    def display(self, *values: Any) -> None:
        """As IPython's."""
        for value in values:
            self._teller.tell(result=bundle(value), main=False)

    @staticmethod
    def _late(*_: Any) -> None:
        raise TimeoutError("the code has taken all of its time")

    def run(self, code: str, timeout: float) -> None:
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, timeout)
                self._execute(code)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except BaseException as error:
            self._fail(error)
        self._figures()
        for stream in (sys.stdout, sys.stderr):
            _quiet(stream.flush)
        for output in self._outputs:
            output.drain()

    def _execute(self, code: str) -> None:
        tree = ast.parse(code, "<code>")
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        self._evaluate(compile(tree, "<code>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
        if isinstance(last, ast.Expr):
            value = self._evaluate(
                compile(ast.Expression(last.value), "<code>", "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            )
            if value is not None:
                self._space["_"] = value
                self._teller.tell(result=bundle(value), main=True)

    def _evaluate(self, code: Any) -> Any:
        value = eval(code, self._space)
        return self._loop.run_until_complete(value) if code.co_flags & inspect.CO_COROUTINE else value

    def _fail(self, error: BaseException) -> None:
        """Without what is this program's own of the traceback."""
        at = error.__traceback__
        while at is not None and at.tb_frame.f_code.co_filename != "<code>":
            at = at.tb_next
        text = "".join(traceback.format_exception(type(error), error, at))
        self._teller.tell(error={"name": type(error).__name__, "value": str(error), "traceback": text})

    def _figures(self) -> None:
        """Those of matplotlib, which nobody has shown."""
        plot = sys.modules.get("matplotlib.pyplot")
        if plot is not None:
            _quiet(lambda: self._show(plot))

    def _show(self, plot: Any) -> None:
        import io

        for number in plot.get_fignums():
            image = io.BytesIO()
            plot.figure(number).savefig(image, format="png")
            shown = {"text/plain": f"<Figure {number}>", "image/png": base64.b64encode(image.getvalue()).decode()}
            self._teller.tell(result=shown, main=False)
        plot.close("all")


class Jupyter:
    """Code that runs in a kernel of Jupyter's, by its protocol."""

    name = "jupyter"

    def __init__(self, teller: Teller) -> None:
        self._teller = teller
        self._manager = importlib.import_module("jupyter_client.manager").KernelManager(kernel_name="python3")
        self._manager.start_kernel(stdout=2, stderr=2)
        self._client = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=300)
        self._client.execute(_SETUP.format(source=SOURCE), silent=True)

    def run(self, code: str, timeout: float) -> None:
        end, late = time.monotonic() + timeout, False
        asked = self._client.execute(code, allow_stdin=False)
        while True:
            try:
                message = self._client.get_iopub_msg(timeout=_STEP)
            except queue.Empty:
                if not self._manager.is_alive():
                    self._begin_again()
                    return
                message = None
            if not late and time.monotonic() > end:
                late = True
                self._manager.interrupt_kernel()
            if message is None or message["parent_header"].get("msg_id") != asked:
                continue
            if self._took(message["msg_type"], message["content"], late):
                return

    def _took(self, kind: str, content: dict[str, Any], late: bool) -> bool:
        """Whether it is the last."""
        if kind == "stream":
            self._teller.tell(**{content["name"]: content["text"]})
        elif kind in ("execute_result", "display_data"):
            self._teller.tell(result=content["data"], main=kind == "execute_result")
        elif kind == "error":
            text = _COLOURS.sub("", "\n".join(content["traceback"]))
            name = "TimeoutError" if late else content["ename"]
            self._teller.tell(error={"name": name, "value": content["evalue"], "traceback": text})
        return kind == "status" and content["execution_state"] == "idle"

    def _begin_again(self) -> None:
        self._teller.tell(error={"name": "KernelDied", "value": "the kernel has died, and its state", "traceback": ""})
        self._manager.restart_kernel(now=True)
        self._client.wait_for_ready(timeout=300)


# Jupyter's own formatters know nothing of a table's rows.
_SETUP = """
import types as _hypercontainer
_hypercontainer = _hypercontainer.ModuleType("hypercontainer_runner")
exec({source!r}, _hypercontainer.__dict__)
get_ipython().display_formatter.mimebundle_formatter.for_type_by_name(
    "pandas.core.frame", "DataFrame", lambda value: {{_hypercontainer.TABLE: _hypercontainer.table(value)}}
)
"""


def interpreter(teller: Teller, wanted: str) -> Any:
    """Jupyter's kernel where it is wanted and there, else this process."""
    if wanted != "plain":
        try:
            importlib.import_module("ipykernel")
            return Jupyter(teller)
        except ImportError:
            if wanted == "jupyter":
                raise
    return Plain(teller)


def main(wanted: str) -> None:
    """Until stdin ends."""
    out = os.dup(1)
    os.dup2(2, 1)
    teller = Teller(out)
    try:
        runs = interpreter(teller, wanted)
    except Exception as error:
        teller.tell(failed=f"{type(error).__name__}: {error}")
        return
    requests = sys.stdin.buffer
    nothing = os.open(os.devnull, os.O_RDONLY)
    sys.stdin = os.fdopen(nothing)
    teller.tell(ready=runs.name)
    for line in requests:
        asked = json.loads(line)
        teller.id = asked["id"]
        runs.run(asked["code"], asked["timeout"])
        teller.tell(done=True)


if __name__ == "__main__":
    main(WANTED)
