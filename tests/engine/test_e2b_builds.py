# SPDX-License-Identifier: Apache-2.0
"""Templates that E2B's own package builds, with machines that are objects; their shell is the one below."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import tarfile
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import e2b
import httpx
import msgspec
import pytest
from aiohttp import web

from hypercontainer.errors import DeadlineExceeded, NoSpace
from hypercontainer.guest.fake_process import FakeProcess
from hypercontainer.images.layout import Layout
from hypercontainer.integrations.e2b import builds, starting, steps, uploads
from hypercontainer.integrations.e2b.server import Server
from hypercontainer.integrations.e2b.templates import LABEL, Template
from hypercontainer.model.registry_auth import registry_auth
from hypercontainer.sdk.api import Api
from tests import registry

from .served import Served, served

KEY = "a key"
CHANGES = ['CMD ["sleep", "100000"]', "ENV PATH=/bin"]
SECONDS = 60.0  # in which each of a client's calls has ended


def _base() -> bytes:
    made = BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("base"))
    return made.getvalue()


BASE = _base()  # the files of an image of which others can be made


async def shell(p: FakeProcess) -> int:
    """What a template's steps ask of it."""
    command = p.args[-1]
    if p.args[3:4] == ("start",):  # a sandbox's own program
        await p.write(b"started\n")
        command = p.args[4]
        if command.startswith("fail "):
            await p.write(f"no\n{starting._ENDED} 3\n".encode(), 2)
        await asyncio.sleep(100_000)
    word, _, rest = command.partition(" ")
    if word == "say":
        await p.write(f"{rest} {p.env.get('V', '')}\n".encode())
    elif word == "printf":
        await p.write(rest.partition('"')[2].rstrip('"').replace("$V", p.env.get("V", "")).encode())
    elif command == "id -u && id -g":
        await p.write(b"7\n8\n")
    elif word == "wait":
        await asyncio.sleep(100_000)
    elif word == "fail":
        await p.write(b"no such thing\n", 2)
        return int(rest)
    return 0


async def idle(p: FakeProcess) -> int:
    """The program of a sandbox that has no other."""
    await asyncio.sleep(100_000)
    return 0


@dataclass
class Account:
    """What a server of E2B's API has, and its hyperd."""

    s: Served
    server: Server
    options: dict[str, Any]

    @property
    def builds(self) -> builds.Builds:
        return self.server._control._builds

    def images(self) -> set[str]:
        return {n for image in self.s.stage.engine.images.describe_all() for n in (image.names or [image.id])}

    async def check(self, *images: str) -> None:
        """Nothing is left but these images of templates. hyperd may hear later than a client that it has gone."""
        wanted: Any = ([], {f"localhost/e2b/{i}" for i in images}, {}, {})
        end = asyncio.get_running_loop().time() + SECONDS
        while (found := self._left()) != wanted and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)
        assert found == wanted

    def _left(self) -> tuple[list[str], set[str], dict[str, Any], dict[Any, int]]:
        own = {f"docker.io/library/{name}:latest" for name in ("box", "small")}
        kept = self.builds.uploads
        return (
            [c.name for c in self.s.stage.engine.registry.containers()],
            self.images() - own,
            kept._files,
            kept._sizes,
        )

    def config(self, name: str) -> dict[str, Any]:
        image = self.s.stage.engine.images.find(f"localhost/e2b/{name}")
        found: dict[str, Any] = json.loads(Layout(self.s.stage.paths.images).blobs.read(image.id))
        return found


@contextlib.asynccontextmanager
async def serving(template: Path) -> AsyncIterator[Account]:
    async with served(template, own_images=True) as s:
        made = s.stage._guest

        def guest(config: Any) -> Any:
            found = made(config)
            found.programs.update({"/bin/sh": shell, "/sbin/docker-init": idle})
            return found

        s.stage.host._guest = guest
        brought = await s.ask("POST", f"/v1/images/import?reference=small&changes={quote(json.dumps(CHANGES))}", BASE)
        assert brought.status == 201, brought.body
        server = Server(KEY, host=str(s.path), image="box")
        runner = web.AppRunner(server.application(), handler_cancellation=True, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield Account(s, server, {"api_key": KEY, "api_url": url, "sandbox_url": url})
        finally:
            await runner.cleanup()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "src/sub").mkdir(parents=True)
    (tmp_path / "src/a").write_text("A")
    (tmp_path / "src/sub/b").write_text("B")
    (tmp_path / "one").write_text("1")
    return tmp_path


async def in_thread(call: Any, *args: Any, **more: Any) -> Any:
    async with asyncio.timeout(SECONDS):
        return await asyncio.to_thread(call, *args, **more)


async def ended(client: dict[str, Any], build: Any) -> Any:
    async with asyncio.timeout(SECONDS):
        while (found := await e2b.AsyncTemplate.get_build_status(build, **client)).status in ("waiting", "building"):
            await asyncio.sleep(0.02)
    return found


async def test_a_template_and_its_sandboxes(template: Path, context: Path) -> None:
    recipe = (
        e2b.Template(file_context_path=context).from_image("small").set_envs({"V": "1", "W": "$V-2"})
        .run_cmd("say hello").copy("src", "/app").copy("one", "/app/", mode=0o600).set_user("web").set_workdir("/srv")
        .run_cmd("say again").copy("*e", "there").set_start_cmd("serve", "say ready")
    )  # fmt: skip
    async with serving(template) as account:
        told: list[str] = []
        made = await in_thread(
            e2b.Template.build, recipe, "mine:v1", tags=["new"], cpu_count=1, memory_mb=96,
            on_build_logs=lambda entry: told.append(entry.message), **account.options,
        )  # fmt: skip
        assert (made.template_id, made.tags) == ("mine", ["v1", "new"])
        assert {"hello 1", "again 1", "the template is ready"} <= set(told), told
        await account.check("mine:v1", "mine:new")
        config = account.config("mine:v1")["config"]
        assert (config["User"], config["WorkingDir"], config["Cmd"]) == ("web", "/srv", ["sleep", "100000"])
        assert "Entrypoint" not in config and config["Env"] == ["PATH=/bin"]
        kept = Template(made.build_id, 1, 96, "serve", "say ready", {"V": "1", "W": "1-2"})
        assert msgspec.json.decode(config["Labels"][LABEL], type=Template) == kept
        layer = Layout(account.s.stage.paths.images).blobs.read(account.config("mine:v1")["rootfs"]["diff_ids"][-1])
        with tarfile.open(fileobj=BytesIO(layer)) as found:
            assert set(found.getnames()) == {"app/a", "app/sub/b", "app/one", "srv/there/one"}
        sandbox = await in_thread(e2b.Sandbox.create, "mine:v1", **account.options)
        container = account.s.stage.engine.registry.container(sandbox.sandbox_id)
        assert container.process.args[-4:] == ["start", "serve", "V=1", "W=1-2"]
        assert (container.spec.resources.memory, container.spec.resources.cpus) == (96 << 20, 1)
        assert await in_thread(sandbox.kill)
        await account.check("mine:v1", "mine:new")


async def test_tags(template: Path) -> None:
    recipe = e2b.AsyncTemplate().from_image("small").run_cmd("say x")
    async with serving(template) as account:
        client = account.options
        first = await e2b.AsyncTemplate.build(recipe, "mine", **client)
        assert await e2b.AsyncTemplate.exists("mine", **client) and not await e2b.AsyncTemplate.exists(
            "other", **client
        )
        await e2b.AsyncTemplate.assign_tags("mine", ["a", "b"], **client)
        second = await e2b.AsyncTemplate.build(e2b.AsyncTemplate().from_template("mine:a"), "mine", **client)
        tags = {t.tag: t.build_id for t in await e2b.AsyncTemplate.get_tags("mine", **client)}
        assert tags == {"default": second.build_id, "a": first.build_id, "b": first.build_id}
        await e2b.AsyncTemplate.remove_tags("mine", ["a", "default"], **client)
        await account.check("mine:b")
        assert await e2b.AsyncTemplate.exists("mine", **client)
        with pytest.raises(e2b.TemplateException, match="no tag 'a'"):
            await e2b.AsyncTemplate.remove_tags("mine", "a", **client)
        with pytest.raises(e2b.SandboxException, match="has no tag 'default'"):
            await e2b.AsyncSandbox.create("mine", **client)
        last = await e2b.AsyncTemplate.build(recipe, "mine", tags=["b"], **client)
        assert last.build_id != first.build_id
        await account.check("mine:b")
        async with httpx.AsyncClient() as http:
            gone = await http.delete(f"{client['api_url']}/templates/mine", headers={"X-API-Key": KEY})
        assert gone.status_code == 204
        await account.check()


@pytest.mark.parametrize(
    ("recipe", "step", "says"),
    [
        (lambda t: t.from_image("small").run_cmd("say x").run_cmd("fail 3"), "2", "exit code 3: fail 3\nno such thing"),
        (lambda t: t.from_image("small").set_user("a b"), "1", "no user's name"),
        (lambda t: t.from_template("none"), "base", "no template 'none'"),
        (lambda t: t.from_image("small").set_start_cmd("fail 1", "fail 1"), "finalize", "ended with exit code 3: .*no"),
        (lambda t: t.from_image("small").set_ready_cmd("fail 1"), "finalize", "did not succeed within"),
    ],
)
async def test_what_fails_leaves_nothing(
    template: Path, monkeypatch: pytest.MonkeyPatch, recipe: Any, step: str, says: str
) -> None:
    monkeypatch.setattr(starting.wait_ready, "__defaults__", (1.0 if "within" in says else SECONDS,))
    async with serving(template) as account:
        build = await e2b.AsyncTemplate.build_in_background(recipe(e2b.AsyncTemplate()), "mine", **account.options)
        found = await ended(account.options, build)
        assert found.status == "error" and found.reason.step == step, found
        assert re.search(says, found.reason.message, re.DOTALL), found.reason.message
        await account.check()


async def test_a_registry_that_asks_for_a_login(template: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import crypt  # goes with Python 3.13; what makes htpasswd files is not installed everywhere
    (tmp_path / "users").write_text(f"me:{crypt.crypt('secret', crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16))}\n")
    with registry.serving(tmp_path, f"auth: {{htpasswd: {{realm: r, path: {tmp_path / 'users'}}}}}\n") as own:
        async with serving(template) as account:
            image = f"{own.address}/team/small:1"
            api = Api(str(account.s.path))
            await api.do("POST", "/images/tag", {"name": "small", "new": image})
            login = {"X-Registry-Auth": registry_auth("me", "secret")}
            async with api.open("POST", "/images/push", {"name": image}, headers=login) as answer:
                assert b'"error"' not in await answer.read()
            await api.do("DELETE", "/images", {"name": image})
            for password, status in (("wrong", "error"), ("secret", "ready")):
                recipe = e2b.AsyncTemplate().from_image(image, "me", password).run_cmd("say x")
                build = await e2b.AsyncTemplate.build_in_background(recipe, "mine", **account.options)
                found = await ended(account.options, build)
                assert found.status == status, found
                if status == "error":
                    assert (found.reason.step, "credentials" in found.reason.message) == ("base", True), found.reason
                    await account.check()
            assert "secret" not in repr(found) and image in account.images()


async def test_the_clients_own_line_is_told(template: Path) -> None:
    async with serving(template) as account:
        recipe = e2b.AsyncTemplate().from_image("small").run_cmd("fail 3")
        with pytest.raises(e2b.BuildException, match="exit code 3"):
            await e2b.AsyncTemplate.build(recipe, "mine", **account.options)
        await account.check()


async def test_builds_have_their_time(template: Path, monkeypatch: pytest.MonkeyPatch, context: Path) -> None:
    monkeypatch.setattr(builds, "LIMIT", 1.0)
    async with serving(template) as account:
        recipe = e2b.AsyncTemplate(file_context_path=context).from_image("small").copy("one", "/x").run_cmd("wait")
        found = await ended(
            account.options, await e2b.AsyncTemplate.build_in_background(recipe, "mine", **account.options)
        )
        assert found.status == "error" and found.reason.message == "it took longer than 1 s"
        monkeypatch.setattr(builds, "WAIT", 0.2)
        waiting = account.builds.request("mine", ["a"], cpus=0, memory=0)
        async with asyncio.timeout(SECONDS):
            while waiting.status == "waiting":
                await asyncio.sleep(0.02)
        assert waiting.reason == "it was not begun within 0.2 s"
        await account.check()


async def test_a_server_that_ends_takes_its_builds_with_it(template: Path) -> None:
    async with serving(template) as account:
        recipe = e2b.AsyncTemplate().from_image("small").run_cmd("say now").run_cmd("wait")
        await e2b.AsyncTemplate.build_in_background(recipe, "mine", **account.options)
        waiting = account.builds.request("other", ["a"], cpus=0, memory=0)
        (build,) = [b for b in account.builds._builds.values() if b.name == "mine"]
        async with asyncio.timeout(SECONDS):
            while build.step != "2":
                await asyncio.sleep(0.02)
        await account.builds.close()
        assert (build.reason, waiting.reason) == ("the server has ended",) * 2
        await account.check()


async def test_builds_of_one_name_are_nobody_elses(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_SIZE_MAX", 100)
    async with serving(template) as account, httpx.AsyncClient(base_url=account.options["api_url"]) as http:
        key = {"X-API-Key": KEY}
        mine, other = (account.builds.request(name, ["a"], cpus=0, memory=0) for name in ("mine", "other"))
        assert (await http.get(f"/templates/other/builds/{mine.id}/status", headers=key)).status_code == 404
        assert (await http.post(f"/v2/templates/other/builds/{mine.id}", headers=key, json={})).status_code == 404
        assert (await http.get(f"/templates/mine/builds/{mine.id}/status")).status_code == 401
        place = f"/templates/mine/files/{'a' * 64}"
        link = (await http.get(place, headers=key)).json()
        assert link["present"] is False
        assert (await http.put(link["url"], content=b"x" * 101)).status_code == 507
        assert (await http.put(link["url"], content=b"x")).status_code == 200
        assert (await http.get(place, headers=key)).json()["present"] is True
        for wrong in (link["url"].replace("/mine/", "/other/"), link["url"].replace("until=", "until=1"), place):
            assert (await http.put(wrong, content=b"x")).status_code == 401
        got = await http.get(f"/templates/other/files/{'a' * 64}", headers=key)
        assert got.json()["present"] is False
        assert (await http.get(f"/templates/third/files/{'a' * 64}", headers=key)).status_code == 404
        copied = {"fromImage": "box", "steps": [{"type": "COPY", "args": ["x", "/x"], "filesHash": "a" * 64}]}
        got = await http.post(f"/v2/templates/other/builds/{other.id}", headers=key, json=copied)
        assert (got.status_code, got.json()["message"]) == (400, "the files of the step COPY x were not sent")
        got = await http.post(f"/v2/templates/mine/builds/{mine.id}", headers=key, json=copied)
        assert got.status_code == 202
        async with asyncio.timeout(SECONDS):
            while mine.status != "error":
                await asyncio.sleep(0.02)
        assert mine.reason.startswith("the files that were sent are no tar"), mine.reason
        again = await http.post(f"/v2/templates/mine/builds/{mine.id}", headers=key, json=copied)
        assert again.status_code == 409
        await account.check()


async def test_an_upload_that_its_build_does_not_wait_for() -> None:
    kept, began, go = uploads.Uploads(), asyncio.Event(), asyncio.Event()

    async def content() -> AsyncIterator[bytes]:
        yield b"x"
        began.set()
        await go.wait()

    async def one() -> AsyncIterator[bytes]:
        yield b"y"

    sending = asyncio.create_task(kept.take("mine", "a", content(), 10))
    async with asyncio.timeout(SECONDS):
        await began.wait()
        kept.drop("mine")
        await kept.take("mine", "b", one(), 10)  # of the next build
        go.set()
        await sending
    assert list(kept.of("mine")) == ["b"] and len(kept._sizes) == 1
    kept.drop("mine")
    assert not kept._sizes


async def test_an_upload_for_which_the_disk_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"x"

    kept = uploads.Uploads()
    monkeypatch.setattr("tempfile.TemporaryFile", lambda: open("/dev/full", "w+b"))
    with pytest.raises(NoSpace, match="the server's disk is full"):
        await kept.take("mine", "a", content(), 10)
    assert not kept.of("mine") and not kept._sizes


async def test_an_upload_that_says_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended; as long as it goes on it counts among those that a build may have."""
    kept, began = uploads.Uploads(), asyncio.Event()
    monkeypatch.setattr(uploads, "_COUNT_MAX", 1)

    async def content() -> AsyncIterator[bytes]:
        yield b"x"
        monkeypatch.setattr(uploads, "_SILENCE", 0.01)
        began.set()
        yield b"y"  # from here on
        await asyncio.Event().wait()

    sending = asyncio.create_task(kept.take("mine", "a", content(), 10))
    async with asyncio.timeout(SECONDS):
        await began.wait()
        with pytest.raises(NoSpace, match="a build has at most 1 uploads"):
            await kept.take("mine", "b", content(), 10)
        with pytest.raises(DeadlineExceeded, match="nothing of the upload has come"):
            await sending
    assert not kept.of("mine") and not kept._sizes and not kept._under_way


def test_a_log_of_line_breaks_is_bounded() -> None:
    build = builds.Build("mine", ["a"], Template("b"))
    for _ in range(100_000):
        build.say("info", "")
    assert len(build.log) < 20_000 and build.log[-1]["message"].startswith("the log is full")


async def test_a_base_whose_name_is_another_images_by_the_end(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = steps.Steps.run
    async with serving(template) as account:

        async def meanwhile(self: Any, step: Any) -> None:
            route = f"/v1/images/import?reference=small&changes={quote(json.dumps(['CMD other']))}"
            assert (await account.s.ask("POST", route, BASE)).status == 201
            await run(self, step)

        monkeypatch.setattr(steps.Steps, "run", meanwhile)
        await e2b.AsyncTemplate.build(
            e2b.AsyncTemplate().from_image("small").run_cmd("say x"), "mine", **account.options
        )
        assert account.config("mine:default")["config"]["Cmd"] == ["sleep", "100000"]


async def test_so_many_builds_at_once(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "_OPEN_MAX", 3)
    monkeypatch.setattr(builds, "_KEPT_MAX", 2)
    async with serving(template) as account:
        made = [account.builds.request(f"t{n}", ["a"], cpus=0, memory=0) for n in range(3)]
        with pytest.raises(e2b.BuildException, match="3 builds are under way"):
            await e2b.AsyncTemplate.build(e2b.AsyncTemplate().from_image("small"), "more", **account.options)
        for build in made:
            account.builds._cancel_wait(build)
            account.builds._end(build, "over")
        account.builds.request("more", ["a"], cpus=0, memory=0)
        assert [b.name for b in account.builds._builds.values()] == ["t2", "more"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"name": "Base"}, "no template's name"),
        ({"name": "base"}, "no template's name"),
        ({"name": "a/b"}, "no template's name"),
        ({"name": "f" * 32}, "no template's name"),
        ({"name": "a:b:c"}, "no template's name"),
        ({}, "no template's name"),
        ({"name": "a", "tags": ["x y"]}, "tags are a list"),
        ({"name": "a", "cpuCount": -1}, "`cpuCount` is a number"),
        ({"name": "a", "memoryMB": "1"}, "`memoryMB` is a number"),
    ],
)
async def test_what_is_no_build(template: Path, body: Any, says: str) -> None:
    async with serving(template) as account, httpx.AsyncClient(base_url=account.options["api_url"]) as http:
        got = await http.post("/v3/templates", headers={"X-API-Key": KEY}, json=body)
        assert got.status_code == 400 and says in got.json()["message"]


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ({}, "from an image, or from a template"),
        ({"fromImage": "box", "fromTemplate": "a"}, "from an image, or from a template"),
        ({"fromImage": "oci:/etc"}, "no image's name"),
        ({"fromImage": "box", "fromImageRegistry": {"type": "aws"}}, "a user name and a password"),
        ({"fromImage": "box", "steps": [{"type": "MOUNT", "args": ["x"]}]}, "the step MOUNT x is not understood"),
        ({"fromImage": "box", "steps": [{"type": "RUN"}]}, "the step RUN  is not understood"),
        ({"fromImage": "box", "steps": [{"type": "ENV", "args": ["a b", "c"]}]}, "not of names and values"),
        ({"fromImage": "box", "steps": [{"type": "COPY", "args": ["../x", "/x"]}]}, "leads out of the directory"),
        ({"fromImage": "box", "steps": [{"type": "COPY", "args": ["x", "/x", "", "9"]}]}, "no mode of a file"),
        ({"fromImage": "box", "steps": [{}]}, "the build is not understood"),
        ({"fromImage": "box", "steps": [{"type": "RUN", "args": ["x"]}] * 1001}, "at most 1000 steps"),
    ],
)
async def test_what_is_no_recipe(template: Path, recipe: Any, says: str) -> None:
    async with serving(template) as account, httpx.AsyncClient(base_url=account.options["api_url"]) as http:
        build = account.builds.request("mine", ["a"], cpus=0, memory=0)
        got = await http.post(f"/v2/templates/mine/builds/{build.id}", headers={"X-API-Key": KEY}, json=recipe)
        assert got.status_code == 400 and says in got.json()["message"], got.json()
        await account.check()
