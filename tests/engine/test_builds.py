# SPDX-License-Identifier: Apache-2.0
"""Builds over a fake dockerd: when the builder is there, what it begins with, what is in the store afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextvars import copy_context
from typing import Any

import pytest

from hypercontainer.engine.builder.machine import NAME, VOLUME
from hypercontainer.engine.builder.passing import Made
from hypercontainer.engine.naming import SYSTEM_LABEL
from hypercontainer.engine.principal import asked_by
from hypercontainer.errors import NotFound, Unavailable
from hypercontainer.guest.fake_programs import PROGRAMS
from hypercontainer.model.principal import Principal
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.model.tenancy import OrganisationRequest, ProjectRequest
from hypercontainer.model.usage import BuildCacheUsage
from hypercontainer.sys import tasks

from .fake_dockerd import FakeDockerd, digest, made
from .stage import IMAGE, Stage
from .trials import BUILDER

SETTINGS, KEEP = BUILDER, BUILDER.keep


@pytest.fixture
def dockerd(monkeypatch: pytest.MonkeyPatch) -> FakeDockerd:
    found = FakeDockerd()
    monkeypatch.setitem(PROGRAMS, "relay", found.relay)
    return found


@pytest.fixture
def build(act: Callable[..., None], dockerd: FakeDockerd) -> Callable[..., None]:
    """Play a scenario with a builder."""
    return lambda scenario: act(scenario, builder=SETTINGS, own_images=True)


async def sent(context: bytes) -> AsyncIterator[bytes]:
    yield context


async def asked(s: Stage, *names: str, context: bytes = b"FROM scratch", **query: str) -> bytes:
    """The whole answer."""
    wanted = [("t", n) for n in names] + list(query.items())
    async with s.engine.builds.build(wanted, {"Content-Type": "application/x-tar"}, sent(context)) as answer:
        return b"".join([piece async for piece in answer.body])


async def built(s: Stage, *names: str, **more: Any) -> bytes:
    return await s.call(asked(s, *names, **more))


def builder(s: Stage) -> str:
    found = s.engine.builds.machine.found()
    return found.id if found else ""


def test_what_is_built_is_in_the_store(build: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        answer = await built(s, "app:latest")
        image = s.engine.images.find("app")
        assert image.id.encode() in answer and b"Step 1" in answer
        assert [c.name for c in s.engine.registry.containers()] == [NAME]
        assert s.engine.registry.shown() == []

    build(scenario)


def test_an_image_without_a_name_is_found_by_its_id(build: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        answer = (await built(s)).decode()
        id_ = answer.partition('"ID": "')[2].partition('"')[0]
        assert s.engine.images.find(id_).id == id_

    build(scenario)


def test_the_builder_waits_for_the_next_build_and_then_ends(build: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        await built(s, "a:latest")
        first = builder(s)
        assert [i.names for i in s.engine.listing.images()] == [
            ["docker.io/library/a:latest"]
        ]  # without the builder's own
        await asyncio.sleep(KEEP - 10)
        await built(s, "b:latest")
        await asyncio.sleep(KEEP - 10)
        assert builder(s) == first
        await asyncio.sleep(60)
        assert (builder(s), s.host.machines) == ("", {})
        assert [IMAGE] in [i.names for i in s.engine.listing.images()]
        assert s.engine.registry.find_volume(VOLUME)

    build(scenario)


def test_images_that_a_context_names_are_there_before_it(build: Callable[..., None], dockerd: FakeDockerd) -> None:
    async def scenario(s: Stage) -> None:
        await built(s, "app:latest", context=b"xx\nFROM box AS one\nCOPY --from=nobody /a /b\n")
        box = s.engine.images.find("box").id
        assert dockerd.images[box] == {"box:latest"}
        assert dockerd.said.count("POST /images/load") == 1
        await built(s, "app:latest", context=b"xx\nFROM box AS one\n")
        assert dockerd.said.count("POST /images/load") == 1

    build(scenario)


def test_a_build_argument_may_name_an_image(build: Callable[..., None], dockerd: FakeDockerd) -> None:
    async def scenario(s: Stage) -> None:
        await built(s, buildargs='{"BASE": "box", "N": "1"}')
        assert {"box:latest"} in dockerd.images.values()

    build(scenario)


def test_our_names_are_the_truth(build: Callable[..., None], dockerd: FakeDockerd) -> None:
    """What the builder has by a name that stands for something else here, or for nothing, is not used."""

    async def scenario(s: Stage) -> None:
        other = dockerd.have(["box:latest", "gone:latest"], "another")
        await built(s, "app:latest", context=b"FROM box\n")
        assert other not in dockerd.images
        assert dockerd.images[s.engine.images.find("box").id] == {"box:latest"}
        with pytest.raises(NotFound):
            s.engine.images.find("gone")

    build(scenario)


def test_what_was_removed_here_is_built_again(build: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        await built(s, "app:latest")
        await s.engine.images.remove("app")
        await built(s, "app:latest")
        assert s.engine.images.find("app")

    build(scenario)


def test_an_image_that_is_here_already_gets_its_name_only(build: Callable[..., None], dockerd: FakeDockerd) -> None:
    async def scenario(s: Stage) -> None:
        await built(s, "app:latest")
        await built(s, "other:latest")
        assert s.engine.images.find("other").id == s.engine.images.find("app").id
        assert dockerd.said.count("GET /images/get") == 1

    build(scenario)


def test_a_build_with_nothing_changed_asks_for_nothing_but_itself(
    build: Callable[..., None], dockerd: FakeDockerd
) -> None:
    """No new connection, which is a process in the guest, and no list of images, which takes dockerd long."""

    async def scenario(s: Stage) -> None:
        await built(s, "app:latest")
        before, relays = list(dockerd.said), dockerd.relays
        await built(s, "app:latest")
        assert (dockerd.said[len(before) :], dockerd.relays) == (["POST /build"], relays)

    build(scenario)


def test_what_is_not_here_any_more_does_not_stay_in_the_builder(
    build: Callable[..., None], dockerd: FakeDockerd
) -> None:
    async def scenario(s: Stage) -> None:
        await built(s, "app:latest", context=b"one")
        first = s.engine.images.find("app").id
        await built(s, "app:latest", context=b"two")
        second = s.engine.images.find("app").id
        assert {first, second} <= set(dockerd.images)  # the first is here, though without a name
        await s.engine.images.remove(first)
        await built(s, "app:latest", context=b"three")
        assert first not in dockerd.images and second in dockerd.images

    build(scenario)


def test_a_name_of_the_store_that_has_moved_on_is_put_right(build: Callable[..., None], dockerd: FakeDockerd) -> None:
    async def scenario(s: Stage) -> None:
        await built(s, "app:latest", context=b"one")
        first = s.engine.images.find("app").id
        s.engine.images.tag(s.engine.images.find("box").id, "app:latest")
        await built(s, "app:latest", context=b"one")
        assert s.engine.images.find("app").id == first

    build(scenario)


def test_layers_that_are_here_are_kept_once(build: Callable[..., None], dockerd: FakeDockerd) -> None:
    async def scenario(s: Stage) -> None:
        await built(s, "app:latest", context=b"one")
        await built(s, "other:latest", context=b"two")
        first, second = s.engine.images.find("app"), s.engine.images.find("other")
        assert first.id != second.id
        assert first.manifest.layers == second.manifest.layers

    build(scenario)


def test_a_build_that_fails_brings_nothing(build: Callable[..., None], dockerd: FakeDockerd) -> None:
    async def scenario(s: Stage) -> None:
        dockerd.failing = "exit code: 7"
        assert b"exit code: 7" in await built(s, "app:latest")
        assert "GET /images/get" not in dockerd.said
        dockerd.failing = ""
        await built(s, "app:latest")
        assert s.engine.images.find("app")

    build(scenario)


def test_who_leaves_ends_the_build(build: Callable[..., None], dockerd: FakeDockerd) -> None:
    async def scenario(s: Stage) -> None:
        dockerd.slow = asyncio.Event()
        assert s.daemon
        task = s.daemon.call(asked(s, "app:latest"))
        while not dockerd.contexts:
            await asyncio.sleep(0.1)
        await tasks.end([task])
        async with asyncio.timeout(30):
            await dockerd.left.wait()

    build(scenario)


def test_a_builder_that_does_not_answer_gives_way_to_another(build: Callable[..., None], dockerd: FakeDockerd) -> None:
    async def scenario(s: Stage) -> None:
        dockerd.deaf = True
        with pytest.raises(Unavailable):
            await built(s, "app:latest")
        assert builder(s) == ""
        dockerd.deaf = False
        await built(s, "app:latest")
        assert s.engine.images.find("app")

    build(scenario)


def test_a_builder_that_ends_during_a_build(build: Callable[..., None], dockerd: FakeDockerd) -> None:
    async def scenario(s: Stage) -> None:
        dockerd.slow = asyncio.Event()
        assert s.daemon
        task = s.daemon.call(asked(s, "app:latest"))
        while not dockerd.contexts:
            await asyncio.sleep(0.1)
        await s.call(s.engine.containers.remove(builder(s), force=True))
        with pytest.raises(Unavailable, match="builder"):
            await task
        dockerd.slow = None
        await built(s, "app:latest")
        assert s.engine.images.find("app")

    build(scenario)


def test_a_builder_that_ends_while_it_gives_the_image(build: Callable[..., None], dockerd: FakeDockerd) -> None:
    async def scenario(s: Stage) -> None:
        dockerd.cut = True
        said = await built(s, "app:latest")
        assert b'"error": "the builder\'s image breaks off' in said
        with pytest.raises(NotFound):
            s.engine.images.find("app")
        dockerd.cut = False
        await built(s, "app:latest")
        assert s.engine.images.find("app")

    build(scenario)


def test_a_builder_outlives_a_daemon_that_is_killed(build: Callable[..., None], dockerd: FakeDockerd) -> None:
    async def scenario(s: Stage) -> None:
        await built(s, "a:latest")
        first = builder(s)
        s.kill()
        await s.open()
        await built(s, "b:latest")
        assert builder(s) == first
        await asyncio.sleep(KEEP + 60)
        assert builder(s) == ""

    build(scenario)


def test_two_builds_at_once_have_one_builder(build: Callable[..., None], dockerd: FakeDockerd) -> None:
    async def scenario(s: Stage) -> None:
        await asyncio.gather(built(s, "a:latest", context=b"one"), built(s, "b:latest", context=b"two"))
        assert len(s.host.machines) == 1
        assert s.engine.images.find("a").id != s.engine.images.find("b").id

    build(scenario)


def test_the_cache_is_measured_and_pruned(build: Callable[..., None], dockerd: FakeDockerd) -> None:
    """A builder starts for that where there may be a cache, and only there."""

    async def scenario(s: Stage) -> None:
        cache = s.engine.builds.cache
        nothing = {"CachesDeleted": None, "SpaceReclaimed": 0}
        assert (await s.call(cache.prune([("all", "1")])), await s.call(cache.free(everything=True))) == (nothing, 0)
        assert await s.call(cache.measure()) == BuildCacheUsage()
        assert builder(s) == ""
        await built(s, "app:latest")
        dockerd.cache = [
            {"ID": "a", "Size": 1000, "InUse": True, "Shared": False, "Old": False},
            {"ID": "b", "Size": 200, "InUse": False, "Shared": False, "Old": True},
            {"ID": "c", "Size": 50, "InUse": False, "Shared": False, "Old": False},
            {"ID": "d", "Size": 7, "InUse": False, "Shared": True, "Old": False},
        ]
        assert await s.call(cache.measure()) == BuildCacheUsage(records=4, active=1, size=1250, reclaimable=250)
        await s.call(s.engine.builds.machine.stop())
        assert await s.call(cache.measure()) == BuildCacheUsage()
        assert await s.call(cache.free(everything=False)) == 200
        assert (await s.call(cache.prune([("all", "1")])))["CachesDeleted"] == ["c", "d"]

    build(scenario)


def test_odd_words_about_the_cache(build: Callable[..., None], dockerd: FakeDockerd) -> None:
    """What runs in a build may have taken the builder over."""

    async def scenario(s: Stage) -> None:
        await built(s, "app:latest")
        dockerd.cache = ["none"]  # type: ignore[list-item]
        with pytest.raises(Unavailable, match="not understood"):
            await s.call(s.engine.builds.cache.measure())
        dockerd.cache = [{"Size": "much"}, {}]
        assert await s.call(s.engine.builds.cache.measure()) == BuildCacheUsage(records=2)

    build(scenario)


def test_anybodys_label_makes_no_container_the_daemons_own(build: Callable[..., None]) -> None:
    """Of containers that people make the owner is known; the daemon's own have none."""

    async def scenario(s: Stage) -> None:
        with asked_by(Principal("uid:1000")):
            assert s.daemon
            mine = ContainerSpec(image=IMAGE, name="mine", labels={SYSTEM_LABEL: NAME})
            await s.daemon.call(s.engine.containers.create(mine), context=copy_context())
        assert builder(s) == "" and len(s.engine.registry.shown()) == 1

    build(scenario)


ASKS = b"\x1a\x04moby"  # of a request to build: for an image


class Passed:
    """A client that speaks with BuildKit itself."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces, self.got, self.opened, self.ended = iter(pieces), b"", False, False
        self.look: Callable[[], None] = lambda: None

    async def open(self) -> None:
        self.opened = True

    async def read(self) -> bytes | None:
        return next(self.pieces, b"")

    async def write(self, data: bytes) -> None:
        self.look()
        self.got += data

    async def end(self) -> None:
        self.ended = True


def test_a_connection_is_passed_through(build: Callable[..., None], dockerd: FakeDockerd) -> None:
    """The image is here before its client hears of it, and dockerd is not asked what it has."""

    async def scenario(s: Stage) -> None:
        await built(s, "app:latest", context=b"FROM box\n")
        lists = dockerd.said.count("GET /images/json")
        peer = Passed(b"dockerfile FROM bo", b"x\n" + ASKS[:2], ASKS[2:] + b"END")
        peer.look = lambda: s.engine.images.find("passed") and None
        await s.call(s.engine.builds.pass_through("/grpc", [("X-More", "1"), ("X-More", "2")], peer))
        assert (peer.opened, peer.got[-4:], peer.ended) == (True, b"DONE", True)
        assert "X-More: 1\r\nX-More: 2\r\n" in dockerd.heads[-1]
        assert {"box:latest"} in dockerd.images.values()
        await s.call(s.engine.builds.catch_up())
        assert dockerd.said.count("GET /images/json") == lists

    build(scenario)


def test_an_answer_that_is_not_read(build: Callable[..., None], dockerd: FakeDockerd) -> None:
    """Of another version, perhaps: dockerd is asked what it has when the connection ends."""

    async def scenario(s: Stage) -> None:
        dockerd.silent = True
        peer = Passed(b"FROM box\n" + ASKS + b"END")
        await s.call(s.engine.builds.pass_through("/grpc", [], peer))
        assert peer.got == b"DONE" and s.engine.images.find("passed")

    build(scenario)


def test_a_client_that_only_looks_whether_it_can_connect(build: Callable[..., None], dockerd: FakeDockerd) -> None:
    async def scenario(s: Stage) -> None:
        await built(s, "app:latest")
        before, relays = list(dockerd.said), dockerd.relays
        peer = Passed()
        await s.call(s.engine.builds.pass_through("/grpc", [], peer))
        assert (peer.opened, peer.ended, dockerd.said, dockerd.relays) == (True, True, before, relays)
        dockerd.silent = True
        await s.call(s.engine.builds.pass_through("/grpc", [], Passed(b"something else END")))
        assert (dockerd.said, dockerd.relays) == ([*before, "POST /grpc"], relays + 1)

    build(scenario)


def test_an_image_that_cannot_be_taken_in(build: Callable[..., None], dockerd: FakeDockerd) -> None:
    """Its client is told why, as HTTP/2 tells of a connection that ends, and not that it was built."""

    async def scenario(s: Stage) -> None:
        dockerd.other = True
        peer = Passed(ASKS + b"END")
        await s.call(s.engine.builds.pass_through("/grpc", [], peer))
        assert b"the builder gave another image" in peer.got and b"DONE" not in peer.got and peer.ended
        dockerd.other = False

    build(scenario)


def test_a_session_is_no_build(build: Callable[..., None], dockerd: FakeDockerd) -> None:
    """It carries what is asked during one; images that it names are there before."""

    async def scenario(s: Stage) -> None:
        await built(s, "app:latest")
        lists = dockerd.said.count("GET /images/json")
        peer = Passed(b"FROM bo", b"x\n", b"END")
        await s.call(s.engine.builds.pass_through("/session", [("X-More", "1")], peer))
        assert peer.got == b"DONE" and {"box:latest"} in dockerd.images.values()
        assert dockerd.said.count("GET /images/json") == lists

    build(scenario)


def test_a_connection_that_dockerd_does_not_take(build: Callable[..., None], dockerd: FakeDockerd) -> None:
    async def scenario(s: Stage) -> None:
        peer = Passed(b"PRI")
        await s.call(s.engine.builds.pass_through("/nothing", [], peer))
        assert b"404" in peer.got and peer.ended

    build(scenario)


def test_the_fake_gives_what_its_id_says() -> None:
    id_, archive = made(["a:latest"], "about")
    assert id_.startswith("sha256:") and digest(archive) != id_


def test_what_was_made_is_said_by_its_digest() -> None:
    """A builder that was taken over could else have any image of ours named as what was built."""
    made_ = Made()
    made_.feed(b'{"aux": {"ID": "busybox"}}\n{"aux": {"ID": "sha256:%s"}}\n{"aux": {"ID": 1}}\n' % (b"a" * 64))
    assert made_.id == "sha256:" + "a" * 64
    other = Made()
    other.feed(b'{"aux": {"ID": "busybox"}}\n')
    assert other.id == ""


def test_projects_build_apart(build: Callable[..., None]) -> None:
    """Each has a builder and a cache of its own, and what one builds the other has not."""

    async def scenario(s: Stage) -> None:
        ids, tenancy = [], s.engine.tenancy
        tenancy.organisations.create(OrganisationRequest(name="ours"))
        projects = [tenancy.projects.create(ProjectRequest(name=name)).id for name in ("red", "blue")]
        for project in projects:
            with asked_by(Principal("token:x", project)):
                context = copy_context()
            assert s.daemon
            await s.daemon.call(asked(s, f"{project}:latest"), context=context)
            ids.append(context.run(builder, s))
            assert [n for i in context.run(s.engine.images.describe_all) for n in i.repo_tags] == [f"{project}:latest"]
            assert context.run(s.engine.registry.shown) == []
        assert len({*ids, ""}) == 3 and builder(s) == ""
        assert {v.tenant for v in s.engine.registry.volumes() if v.name == VOLUME} == {*projects}
        for project in projects:
            assert s.engine.tenants.contents.counted(project) == []
            await s.call(s.engine.tenants.contents.clear(project))
        assert s.engine.registry.containers() == [] and s.engine.registry.volumes() == []

    build(scenario)
