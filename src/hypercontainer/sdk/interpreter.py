# SPDX-License-Identifier: Apache-2.0
"""Python code in a sandbox, with state between calls: a process there that runs it and tells what it gives.

The process is `runner.py`, which goes in by its stdin, so that the image needs python3 and nothing else.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn, Self

import msgspec

from ..errors import InvalidState, NoSpace, StartFailed, Unavailable
from ..model.frames import STDOUT
from .limits import DEFAULT, Deadline
from .process import OUTPUT_MAX, AsyncProcess, limited, next_piece, send
from .results import CodeError, CodeResult, Execution

Kernel = Literal["auto", "jupyter", "plain"]
# The first line of its input is the runner itself, and how it is to run code.
_BEGIN = (
    "import json, sys; given = json.loads(sys.stdin.buffer.readline()); "
    "exec(compile(given[0], '<runner>', 'exec'), {'__name__': '__main__', 'SOURCE': given[0], 'WANTED': given[1]})"
)
COMMAND = ["python3", "-c", _BEGIN]
_MARGIN = 3.0  # seconds, at most, in which code that is interrupted says so
_WORDS = 2000  # characters of why it does not work


class _Told(msgspec.Struct):
    """A line of the runner's."""

    id: int = 0
    stdout: str = ""
    stderr: str = ""
    result: dict[str, Any] | None = None
    main: bool = False
    error: CodeError | None = None
    done: bool = False
    ready: str = ""
    failed: str = ""


class AsyncInterpreter:
    """An interpreter that runs; its variables are kept until it is closed."""

    def __init__(self, process: AsyncProcess) -> None:
        self._process = process
        self._turn = asyncio.Lock()
        self._rest = bytearray()
        self._looked = 0  # bytes of it in which no line ends
        self._length = 0  # of the last line, bytes
        self._said = b""  # what it wrote beside its answers
        self._number = 0
        self._kernel = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End it, at once."""
        self._process.close()

    @property
    def kernel(self) -> str:
        """What runs the code: `jupyter` or `plain`."""
        return self._kernel

    @property
    def ended(self) -> bool:
        """Whether it was seen to end."""
        return self._process.exit_code is not None

    async def run(self, code: str, *, timeout: float = DEFAULT) -> Execution:
        """Run code, and wait for it. What it raises is no error of this call but in what that gives. After the timeout
        the code is interrupted, and the variables stay.

        :raise DeadlineExceeded: it could not be interrupted, or the sandbox does not answer.
        :raise InvalidState: the interpreter has ended.
        """
        # It is interrupted from within, before this call would end.
        inner = timeout - min(_MARGIN, timeout / 4)
        return await limited(self._process, Deadline(timeout), "the code", self._run(code, inner))

    async def _run(self, code: str, inner: float) -> Execution:
        async with self._turn:
            self._number += 1
            await self._send({"id": self._number, "code": code, "timeout": inner})
            return await self._collect()

    async def _collect(self) -> Execution:
        texts = {"stdout": "", "stderr": ""}
        results, error, size = [], None, 0
        while not (told := await self._told()).done:
            size += self._length
            if size > OUTPUT_MAX:
                self._too_much()
            texts["stdout"] += told.stdout
            texts["stderr"] += told.stderr
            if told.result is not None:
                results.append(CodeResult(told.result, told.main))
            error = told.error or error
        return Execution(results, texts["stdout"], texts["stderr"], error)

    def _too_much(self) -> NoReturn:
        self.close()
        raise NoSpace(f"the code has given more than {OUTPUT_MAX >> 20} MiB, and was ended")

    async def _send(self, what: object) -> None:
        try:
            await send(self._process, json.dumps(what).encode() + b"\n")
        except InvalidState:
            raise InvalidState("the interpreter has ended", hint="begin another") from None

    async def _told(self) -> _Told:
        """What it tells of the present run; what is late of an earlier one is passed over."""
        while True:
            end = self._rest.find(b"\n", self._looked)
            if end < 0:
                self._looked = len(self._rest)
                if self._looked > OUTPUT_MAX:
                    self._too_much()
                await self._more()
                continue
            line = bytes(self._rest[:end])
            del self._rest[: end + 1]
            self._looked, self._length = 0, end
            try:
                told = msgspec.convert(json.loads(line), _Told)  # `json` knows NaN, as the runner's
            except (ValueError, RecursionError, msgspec.MsgspecError):  # the code itself may have written there
                raise Unavailable(f"the interpreter's answer is not understood: {line[:80]!r}") from None
            if told.id == self._number:
                return told

    async def _more(self) -> None:
        found = await next_piece(self._process)
        if found is None:
            last = self._said.decode(errors="replace").strip().splitlines()[-1:]
            raise InvalidState(f"the interpreter has ended with exit code {self._process.exit_code}",
                               hint=last[0] if last else "begin another")  # fmt: skip
        stream, data = found
        if stream == STDOUT:
            self._rest += data
        else:
            self._said = (self._said + data)[-_WORDS:]

    async def _begin(self, kernel: Kernel) -> None:
        source = await asyncio.to_thread(Path(__file__).with_name("runner.py").read_text)
        await self._send([source, kernel])
        try:
            told = await self._told()
        except StartFailed as error:
            raise StartFailed(error.message, exit_status=error.exit_status,
                              hint="code is run by the image's python3") from None  # fmt: skip
        if told.failed:
            raise StartFailed(f"the interpreter does not work: {told.failed[:_WORDS]}")
        self._kernel = told.ready


async def begun(process: AsyncProcess, kernel: Kernel, deadline: Deadline) -> AsyncInterpreter:
    """The interpreter of a process that was begun with COMMAND; it is ended when that fails.

    :raise StartFailed: there is no Python, or not the kernel that is wanted.
    """
    made = AsyncInterpreter(process)
    try:
        await limited(process, deadline, "the interpreter's start", made._begin(kernel))
    except BaseException:
        made.close()
        raise
    return made
