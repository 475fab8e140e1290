# SPDX-License-Identifier: Apache-2.0
"""The steps of a build, in a sandbox of the image that it begins with."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import posixpath
import re
import shlex
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import IO, Any

import msgspec

from ...client.base import container_route
from ...errors import HyperError, InvalidArgument, NotFound
from ...sdk import AsyncSandbox
from ...sdk.api import Api
from ...sdk.archives import pieces
from .commands import shell_of
from .copying import Copy, mode_of, rewrite, source_of

_LINE_MAX = 4096  # characters of a line of output; what is longer is several
_LONG = 3600.0  # seconds for a command; the build's own limit comes first
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HASH = re.compile("[0-9a-f]{64}")
_ARGUMENTS = {"RUN": (1, 2), "COPY": (2, 4), "ENV": (2, 2000), "WORKDIR": (1, 1), "USER": (1, 2)}  # how many, at least
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
# Images that have neither program get a line in their files.
_MAKE_USER = """
id -u {name} >/dev/null 2>&1 && exit
useradd -m {name} 2>/dev/null && exit
adduser -D {name} 2>/dev/null && exit
number=1000
while grep -q "^[^:]*:[^:]*:$number:" /etc/passwd /etc/group; do number=$((number + 1)); done
echo "{name}:x:$number:$number::/home/{name}:/bin/sh" >>/etc/passwd &&
    echo "{name}:x:$number:" >>/etc/group &&
    mkdir -p /home/{name} && chown $number:$number /home/{name}
"""
Log = Callable[[str, str], None]  # a level, and a line


class BuildFailed(HyperError):
    """A step of a build has not come to a good end."""

    code = "build_failed"


class Step(msgspec.Struct, frozen=True, rename="camel"):
    """As a client sends it; there is no cache, so all are run."""

    type: str
    args: list[str] = []
    files_hash: str = ""

    def check(self, uploads: Mapping[str, Any]) -> None:
        """:raise InvalidArgument: it is none, or its files were not sent."""
        least, most = _ARGUMENTS.get(self.type, (0, -1))
        if not least <= len(self.args) <= most or not self.args[0] or any("\0" in a for a in self.args):
            raise InvalidArgument(f"the step {self.type} {' '.join(self.args)} is not understood")
        if self.type == "ENV" and (len(self.args) % 2 or not all(map(_VARIABLE.fullmatch, self.args[::2]))):
            raise InvalidArgument(f"the step ENV {' '.join(self.args)} is not of names and values")
        if self.type == "COPY":
            source_of(self.args[0])
            mode_of("".join(self.args[3:4]))
            if self.files_hash not in uploads:
                raise InvalidArgument(f"the files of the step COPY {self.args[0]} were not sent")


def check_hash(text: str) -> str:
    """:raise InvalidArgument: it is none."""
    if not _HASH.fullmatch(text):
        raise InvalidArgument(f"{text!r} is no SHA-256 in hexadecimal")
    return text


class Steps:
    """What the steps before have made: files in the sandbox, and how the next ones are run."""

    def __init__(
        self, api: Api, sandbox: AsyncSandbox, uploads: Mapping[str, IO[bytes]], env: Mapping[str, str], log: Log
    ) -> None:
        self._api = api
        self._sandbox = sandbox
        self._uploads = uploads
        self._log = log
        self._shell = ""
        self.env = dict(env)
        self.user = ""  # "": the image's; so for `workdir`
        self.workdir = ""

    async def run(self, step: Step) -> None:
        """:raise BuildFailed: it fails; and other errors of the sandbox."""
        self._shell = self._shell or await shell_of(self._sandbox)
        verbs: dict[str, Callable[..., Awaitable[None]]] = {
            "RUN": self._run, "ENV": self._env, "WORKDIR": self._workdir, "USER": self._user,
            "COPY": partial(self._copy, step.files_hash),
        }  # fmt: skip
        await verbs[step.type](*step.args)

    async def _run(self, command: str, user: str = "", *, root: bool = False) -> None:
        """A command, whose output is the build's log."""
        found = await self._sandbox.exec(
            [self._shell, "-l", "-c", command], env=self.env, workdir="/" if root else self.workdir,
            user="root" if root else user or self.user,
        )  # fmt: skip
        lines = {"stdout": _Lines("info", self._log), "stderr": _Lines("warn", self._log)}
        async with found as process:
            async for piece in process.output(timeout=_LONG):
                lines[piece.stream].take(piece.data)
        for each in lines.values():
            each.end()
        if process.exit_code:
            raise BuildFailed(f"the command ended with exit code {process.exit_code}: {command}")

    async def _said(self, script: str, user: str) -> str:
        """What a command of ours writes."""
        done = await self._sandbox.run(["/bin/sh", "-c", script], env=self.env, user=user)
        if not done.ok:
            raise BuildFailed(f"{done.stderr.strip() or script}")
        return done.stdout

    async def _expanded(self, text: str) -> str:
        """With the values of variables in it."""
        if "$" not in text:
            return text
        escaped = re.sub(r'(["\\`])', r"\\\1", text)
        return await self._said(f'printf %s "{escaped}"', "root")

    async def _env(self, *pairs: str) -> None:
        for name, value in zip(pairs[::2], pairs[1::2], strict=True):
            self.env[name] = await self._expanded(value)

    async def _workdir(self, path: str) -> None:
        path = self._absolute(await self._expanded(path))
        await self._run(f"mkdir -p {shlex.quote(path)}")
        self.workdir = path

    async def _user(self, user: str, _: str = "") -> None:
        """One that is not there is made, by what the image has for it."""
        user = await self._expanded(user)
        name = user.partition(":")[0]
        if not name.isdecimal():
            if not _USER.fullmatch(name):
                raise BuildFailed(f"{name!r} is no user's name")
            await self._run(_MAKE_USER.format(name=name), root=True)
        self.user = user

    def _absolute(self, path: str) -> str:
        return posixpath.normpath(posixpath.join(self.workdir or self._sandbox.files._absolute("."), path))

    async def _copy(self, sent: str, source: str, target: str, owner: str = "", mode: str = "") -> None:
        path, there = self._absolute(await self._expanded(target)), False
        with contextlib.suppress(NotFound):
            there = (await self._sandbox.files.stat(path)).is_dir
        uid, gid = (int(n) for n in (await self._said("id -u && id -g", owner or self.user)).split())
        copy = Copy(
            source_of(source), path, into=there or target.endswith("/"), there=there, uid=uid, gid=gid,
            mode=mode_of(mode),
        )  # fmt: skip
        with tempfile.TemporaryFile() as archive:
            await asyncio.to_thread(rewrite, self._uploads[sent], copy, archive)
            route = container_route(self._sandbox.id, "/archive")
            async with self._api.open("PUT", route, {"path": "/"}, body=pieces(archive)) as exchange:
                await exchange.read()


class _Lines:
    """Output that comes in pieces, as lines of a log."""

    def __init__(self, level: str, log: Log) -> None:
        self._level, self._log = level, log
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def take(self, data: bytes, *, last: bool = False) -> None:
        *lines, self._rest = (self._rest + self._decoder.decode(data, last)).split("\n")
        if len(self._rest) > _LINE_MAX:
            lines, self._rest = [*lines, self._rest], ""
        for line in lines:
            for at in range(0, len(line) or 1, _LINE_MAX):
                self._log(self._level, line[at : at + _LINE_MAX].rstrip("\r"))

    def end(self) -> None:
        self.take(b"", last=True)
        if self._rest:
            self.take(b"\n")


def reason_of(failed: BaseException, tail: Sequence[str]) -> str:
    """What a client is told: the error, and the last that the step has said."""
    said = str(failed) or type(failed).__name__
    return f"{said}\n{chr(10).join(tail)}" if tail and isinstance(failed, BuildFailed) else said
