# SPDX-License-Identifier: Apache-2.0
"""Code that runs in sandboxes, with state between calls."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypercontainer.errors import DeadlineExceeded, InvalidState, StartFailed
from hypercontainer.sdk import Interpreter, Sandbox
from hypercontainer.sdk.interpreter import Kernel

from .conftest import Daemon
from .python_image import with_python

START = 200  # seconds, on a busy host that emulates
LIMIT = 1800  # seconds for a test, the first of which makes the image


@pytest.fixture
def sandbox(hyper: Daemon) -> Iterator[Sandbox]:
    with Sandbox.create(with_python(hyper), memory="512m", host=str(hyper.socket)) as made:
        yield made


def check_results(interpreter: Interpreter) -> None:
    """What both kernels give."""
    done = interpreter.run("import sys, os\nx = 20\nprint('out'); print('err', file=sys.stderr)\nx + 1", timeout=START)
    assert (done.text, done.stdout, done.stderr, done.error) == ("21", "out\n", "err\n", None)
    assert interpreter.run("os.system('echo from a child'); x", timeout=START).stdout == "from a child\n"
    picture = "class P:\n  def _repr_png_(self): return b'\\x89PNG'\n  def _repr_html_(self): return '<b>p</b>'\nP()"
    (shown,) = interpreter.run(picture, timeout=START).results
    assert (shown.png, shown.html, shown.main) == (b"\x89PNG", "<b>p</b>", True)
    assert [r.text for r in interpreter.run("display(1); display('two')", timeout=START).results] == ["1", "'two'"]
    failed = interpreter.run("def f(): return 1 / 0\nf()", timeout=START).error
    assert failed and (failed.name, failed.value) == ("ZeroDivisionError", "division by zero")
    assert "in f" in failed.traceback and "\x1b" not in failed.traceback
    try:
        late = interpreter.run("import time\ntime.sleep(1000)", timeout=8).error
        assert late and late.name == "TimeoutError"
    except DeadlineExceeded:
        pass  # a busy host has not told it in time; it was interrupted all the same
    assert interpreter.run("x", timeout=START).text == "20"


@pytest.mark.slow  # tests/unit/test_sdk.py runs the same code without a virtual machine
@pytest.mark.timeout(LIMIT)
def test_plain(sandbox: Sandbox) -> None:
    with sandbox.interpreter(kernel="plain", timeout=START) as interpreter:
        assert interpreter.kernel == "plain"
        check_results(interpreter)
        frame = (
            "class Frame:\n  columns = ['a', 'b']\n  shape = (2, 2)\n"
            "  def itertuples(self, index): return iter([(1, 'x'), (2, 'y')])\nFrame()"
        )
        table = interpreter.run(frame).results[0].table
        assert table and (table.columns, table.rows, table.count) == (["a", "b"], [[1, "x"], [2, "y"]], 2)
        assert interpreter.run("import asyncio\nawait asyncio.sleep(0, 5)").text == "5"
        deaf = "import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass"
        with pytest.raises(DeadlineExceeded, match="the code took longer than 4 s: "):
            interpreter.run(deaf, timeout=4)
    with sandbox.interpreter(kernel="plain", timeout=START) as interpreter:
        with pytest.raises(InvalidState, match="the interpreter has ended with exit code 7"):
            interpreter.run("os = __import__('os'); os._exit(7)")
        assert interpreter.ended


@pytest.mark.slow  # Jupyter's kernel takes long to begin where a processor is emulated
@pytest.mark.timeout(LIMIT)
def test_jupyter(sandbox: Sandbox) -> None:
    with sandbox.interpreter(timeout=START) as interpreter:
        assert interpreter.kernel == "jupyter"
        check_results(interpreter)
        died = interpreter.run("os._exit(1)", timeout=START).error
        assert died and died.name == "KernelDied"
        assert interpreter.run("1 + 1", timeout=START).text == "2"


@pytest.mark.parametrize("kernel", ["auto", "plain"])
def test_an_image_without_python(hyper: Daemon, kernel: Kernel) -> None:
    with Sandbox.create("busybox", host=str(hyper.socket)) as sandbox:
        with pytest.raises(StartFailed, match=r"python3.*not found.*: code is run by the image's python3"):
            sandbox.interpreter(kernel=kernel)
