# SPDX-License-Identifier: Apache-2.0
"""Made of `sdk/interpreter.py` by scripts/make_sync_sdk.py: change that, and run it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from ..interpreter import AsyncInterpreter
from ..limits import DEFAULT
from ..portal import call, run
from ..results import Execution


class Interpreter:
    """An interpreter that runs; its variables are kept until it is closed."""

    def __init__(self, wrapped: AsyncInterpreter) -> None:
        self._wrapped = wrapped

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        run(self._wrapped.__aexit__(kind, _, __))

    def close(self) -> None:
        """End it, at once."""
        call(self._wrapped.close)

    @property
    def kernel(self) -> str:
        """What runs the code: `jupyter` or `plain`."""
        return self._wrapped.kernel

    @property
    def ended(self) -> bool:
        """Whether it was seen to end."""
        return self._wrapped.ended

    def run(self, code: str, *, timeout: float = DEFAULT) -> Execution:
        """Run code, and wait for it. What it raises is no error of this call but in what that gives. After the timeout
        the code is interrupted, and the variables stay.

        :raise DeadlineExceeded: it could not be interrupted, or the sandbox does not answer.
        :raise InvalidState: the interpreter has ended.
        """
        return run(self._wrapped.run(code, timeout=timeout))
