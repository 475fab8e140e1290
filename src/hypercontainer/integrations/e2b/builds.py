# SPDX-License-Identifier: Apache-2.0
"""Builds of templates: each runs in a sandbox, which is made an image in the end. Whatever happens, nothing else of it
is left: hyperd ends the sandbox of a server that was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ...client.base import container_route
from ...client.sources import is_place
from ...errors import Conflict, HyperError, InvalidArgument, InvalidState, NotFound, Unsupported
from ...model.images import CommitRequest, Image, LoadedImage
from ...model.registry_auth import registry_auth
from ...model.specs import ContainerSpec
from ...sdk import AsyncSandbox, images
from ...sdk.api import Api
from ...sdk.sandbox import last_seen
from ...sdk.spec import LABEL as MADE_FOR
from .starting import command_of, wait_ready
from .steps import BuildFailed, Step, Steps, reason_of
from .templates import LABEL, Template, Templates
from .terms import image_of, time_of
from .uploads import Uploads

WAIT = 3600.0  # seconds in which a build that was asked for is begun
LIMIT = 3600.0  # seconds for a build, its turn included
_OPEN_MAX = 32  # builds that wait or run
_RUN_MAX = 4  # at once, each a virtual machine
_KEPT_MAX = 32  # that have ended, and of which a client may still ask
_LOG_MAX = 4 << 20  # characters of a build's log
_ENTRY = 256  # that a line counts for beside its own: a program may write nothing but line breaks
_TAIL = 10  # lines that are told with an error
_STEPS_MAX = 1000


class _Registry(msgspec.Struct, frozen=True):
    type: str = ""
    username: str = ""
    password: str = ""


class Recipe(msgspec.Struct, frozen=True, rename="camel"):
    """What is to be built, as a client says it."""

    from_image: str = ""
    from_template: str = ""
    from_image_registry: _Registry | None = None
    steps: list[Step] = []
    start_cmd: str = ""
    ready_cmd: str = ""

    def check(self, uploads: Mapping[str, Any]) -> None:
        """:raise InvalidArgument: it cannot be understood. :raise Unsupported: it asks for what there is not here."""
        if bool(self.from_image) == bool(self.from_template):
            raise InvalidArgument("a template is from an image, or from a template")
        if is_place(self.from_image):
            raise InvalidArgument(f"{self.from_image} is no image's name", hint="clients name no places of the host")
        if self.from_image_registry and self.from_image_registry.type != "registry":
            raise Unsupported("registries are logged in to with a user name and a password here")
        if len(self.steps) > _STEPS_MAX:
            raise InvalidArgument(f"a template has at most {_STEPS_MAX} steps")
        for step in self.steps:
            step.check(uploads)


@dataclass(eq=False)
class Build:
    """One of them, until it is forgotten."""

    name: str  # of the template
    tags: Sequence[str]
    template: Template
    status: str = "waiting"  # building, ready, error
    step: str = "base"  # or a number, counted from 1; or finalize
    reason: str = ""
    log: list[dict[str, str]] = field(default_factory=list)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL))  # of the step
    task: asyncio.Task[None] | None = None  # until it is begun, the wait for that
    begun: bool = False
    _size: int = 0

    @property
    def id(self) -> str:
        return self.template.build

    def say(self, level: str, line: str) -> None:
        """Into the log, as long as there is room."""
        self.tail.append(line)
        if self._size > _LOG_MAX:
            return
        self._size += len(line) + _ENTRY
        if self._size > _LOG_MAX:
            level, line = "warn", "the log is full: what comes next is not in it"
        self.log.append({"timestamp": time_of(time.time()), "level": level, "message": line, "step": self.step})


class Builds:
    """Those of this server."""

    def __init__(self, host: str | None, api: Api, templates: Templates, image: str) -> None:
        """`image`: what `base` is."""
        self._host = host
        self._api = api
        self._templates = templates
        self._image = image
        self._turns = asyncio.Semaphore(_RUN_MAX)
        self._builds: dict[str, Build] = {}
        self.uploads = Uploads()

    async def close(self) -> None:
        """End those that are under way."""
        tasks = [build.task for build in self._builds.values() if build.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _open(self) -> list[Build]:
        return [b for b in self._builds.values() if b.status in ("waiting", "building")]

    def request(self, name: str, tags: Sequence[str], *, cpus: int, memory: int) -> Build:
        """A new one, which waits for its files and its begin. :raise Conflict: too many are under way."""
        under_way = self._open()
        if len(under_way) >= _OPEN_MAX:
            raise Conflict(f"{_OPEN_MAX} builds are under way", hint="wait for one of them")
        ended = [b for b in self._builds.values() if b not in under_way]
        for build in ended[: max(0, len(ended) - _KEPT_MAX + 1)]:
            del self._builds[build.id]
        build = Build(name, tags, Template(str(uuid.uuid4()), cpus, memory))
        self._builds[build.id] = build
        build.task = asyncio.create_task(self._expire(build))
        return build

    async def _expire(self, build: Build) -> None:
        try:
            await asyncio.sleep(WAIT)
            self._end(build, f"it was not begun within {WAIT:g} s")
        except asyncio.CancelledError:
            if not build.begun:
                self._end(build, "the server has ended")
            raise

    def find(self, name: str, id_: str) -> Build:
        """:raise NotFound: this template has no such build."""
        build = self._builds.get(id_)
        if build is None or build.name != name:
            raise NotFound(f"template {name!r} has no build {id_!r}")
        return build

    def expect(self, name: str) -> None:
        """:raise NotFound: no build of this template is under way, so none needs files."""
        if not any(b.name == name for b in self._open()):
            raise NotFound(f"no build of template {name!r} is under way")

    async def begin(self, build: Build, recipe: Recipe) -> None:
        """Go to work. What is wrong with a recipe ends its build.

        :raise InvalidState: it has begun before. :raise InvalidArgument: it is not understood.
        """
        if build.begun or build.status != "waiting":
            raise InvalidState(f"build {build.id} has begun already")
        try:
            recipe.check(self.uploads.of(build.name))
        except HyperError as error:
            self._cancel_wait(build)
            self._end(build, str(error))
            raise
        self._cancel_wait(build)
        build.task = asyncio.create_task(self._run(build, recipe))

    def _cancel_wait(self, build: Build) -> None:
        build.begun = True
        if build.task:
            build.task.cancel()

    def _end(self, build: Build, reason: str = "") -> None:
        build.status, build.reason, build.task = "error" if reason else "ready", reason, None
        if reason:
            build.say("error", reason)
        if not any(other.name == build.name for other in self._open()):
            self.uploads.drop(build.name)

    async def _run(self, build: Build, recipe: Recipe) -> None:
        reason = "the server has ended"
        try:
            async with asyncio.timeout(LIMIT), self._turns:
                build.status = "building"
                await self._build(build, recipe)
            reason = ""
        except TimeoutError:
            reason = f"it took longer than {LIMIT:g} s"
        except Exception as error:
            reason = reason_of(error, [*build.tail])
        finally:
            self._end(build, reason)

    async def _build(self, build: Build, recipe: Recipe) -> None:
        image, below = await self._base(recipe)
        made = ""
        try:
            made, template = await self._image_of(build, recipe, image, below)
            build.step = "finalize"
            build.tail.clear()
            await self._try(build, made, template)
            await self._templates.put(made, build.name, build.tags)
        except BaseException:
            if made:
                with contextlib.suppress(HyperError):
                    await self._templates.discard(made)
            raise
        build.say("info", "the template is ready")

    async def _base(self, recipe: Recipe) -> tuple[str, Template | None]:
        """The image that it begins with, and the template of that, where it is one's."""
        if name := recipe.from_template:
            found = await self._templates.find(name)
            if found:
                return found.image, found.template
            if image_of(name, self._image) == name:
                raise NotFound(f"there is no template {name!r}")
            return self._image, None
        if login := recipe.from_image_registry:
            auth = {"X-Registry-Auth": registry_auth(login.username, login.password)}
            await images.pull(self._api, recipe.from_image, auth)
        return recipe.from_image, None

    async def _image_of(
        self, build: Build, recipe: Recipe, image: str, below: Template | None
    ) -> tuple[str, Template]:  # fmt: skip
        """The image's id, of a sandbox in which all steps were run."""
        build.say("info", f"FROM {recipe.from_image or recipe.from_template}")
        own = build.template
        sandbox = await AsyncSandbox.create(
            image, cpus=own.cpus or None, memory=own.memory << 20 or None, labels={MADE_FOR: "e2b-build"},
            ttl=LIMIT, host=self._host, timeout=LIMIT,
            spec=ContainerSpec(image="", pull="never" if below else "missing"),
        )  # fmt: skip
        async with sandbox:
            steps = Steps(self._api, sandbox, self.uploads.of(build.name), below.env if below else {}, build.say)
            for number, step in enumerate(recipe.steps, 1):
                build.step = str(number)
                build.tail.clear()
                build.say("info", f"{step.type} {' '.join(filter(None, step.args))}")
                build.tail.clear()
                await steps.run(step)
            template = msgspec.structs.replace(own, start=recipe.start_cmd, ready=recipe.ready_cmd, env=steps.env)
            if below and not (recipe.start_cmd or recipe.ready_cmd):
                template = msgspec.structs.replace(template, start=below.start, ready=below.ready, env=below.env)
            return await self._commit(sandbox, template, steps), template

    async def _commit(self, sandbox: AsyncSandbox, template: Template, steps: Steps) -> str:
        """The image has its base's own program again, in the place of the sandbox's."""
        name = last_seen(sandbox).image_id  # the name may be another image's by now
        base = (await self._api.call(Image, "GET", "/images/inspect", {"name": name})).config
        config = {
            "Entrypoint": base.get("Entrypoint") or [], "Cmd": base.get("Cmd") or [], "User": steps.user,
            "WorkingDir": steps.workdir, "Labels": {LABEL: msgspec.json.encode(template).decode()},
        }  # fmt: skip
        request = CommitRequest(message="e2b template", config=config)
        route = container_route(sandbox.id, "/commit")
        return (await self._api.call(LoadedImage, "POST", route, None, request)).id

    async def _try(self, build: Build, image: str, template: Template) -> None:
        """A sandbox of it has to become ready. :raise BuildFailed: it does not."""
        if not (template.start or template.ready):
            return
        build.say("info", "starting a sandbox of it")
        build.tail.clear()
        sandbox = await AsyncSandbox.create(
            image, command=command_of(template), cpus=template.cpus or None, memory=template.memory << 20 or None,
            labels={MADE_FOR: "e2b-build"}, ttl=LIMIT, host=self._host,
            spec=ContainerSpec(image="", run_init=True, pull="never"),
        )  # fmt: skip
        async with sandbox:
            try:
                await wait_ready(sandbox, template)
            except HyperError as error:
                raise BuildFailed(str(error)) from None
