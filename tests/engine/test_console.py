# SPDX-License-Identifier: Apache-2.0
"""The console over fakes: who gets in, what pages are made of, and what forms do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import yarl
from aiohttp.test_utils import TestServer

from hypercontainer.cluster.fake import FakeCluster, FakeLedgers
from hypercontainer.cluster.port import Ports
from hypercontainer.console import sessions as module
from hypercontainer.console.app import CSP, PAGES, build
from hypercontainer.console.sessions import IDLE, LIFE, Session, Sessions, name_of_cookie
from hypercontainer.engine.principal import asked_by
from hypercontainer.errors import Unauthorized
from hypercontainer.guest.fake_programs import PROGRAMS
from hypercontainer.images.progress import Progress
from hypercontainer.model.billing import CreditRequest, Prices
from hypercontainer.model.cron import CronRequest
from hypercontainer.model.deployments import DeploymentRequest
from hypercontainer.model.pods import VolumeSpec
from hypercontainer.model.principal import DAEMON, Principal, Scope
from hypercontainer.model.quotas import Quota
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.model.tenancy import OrganisationRequest, ProjectRequest
from hypercontainer.model.tokens import TokenRequest
from hypercontainer.model.volume_snapshots import VolumeSnapshotRequest
from hypercontainer.serving.identity import Identity

from .stage import IMAGE, SCRATCH, Stage, stage

PRICES = Prices(name="standard", currency="EUR", valid_from="2023-01-01", volume_month="0.1")
VOID = {"meta", "link", "input", "br"}
STREAMS = ("/logs", "/stats", "/live", "/socket", "/contents")


class Markup(HTMLParser):
    """A page's elements, and what is wrong with it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: set[str] = set()
        self.labelled: list[str] = []
        self.named: set[str] = set()
        self.forms: list[dict[str, Any]] = []
        self.feed(text)
        self.wrong += [f"<{tag}> is open" for tag in self.open]
        self.wrong += [f"a label is for {i}, which is not there" for i in self.labelled if i not in self.ids]
        posts = [f for f in self.forms if f.get("method") == "post" and f.get("action") != "/login"]
        self.wrong += [f"the form {f['action']} has no csrf" for f in posts if "csrf" not in f["fields"]]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if found := [a for a in given if a.startswith("on") or a == "style"] + [tag] * (tag == "style"):
            self.wrong.append(f"<{tag}> has {found}, which the policy forbids")
        if tag == "script" and "src" not in given:
            self.wrong.append("a script in the page")
        if tag not in VOID:
            self.open.append(tag)
        self.ids.add(given.get("id") or "")
        if tag == "label" and given.get("for"):
            self.labelled.append(given["for"] or "")
        if tag == "form":
            self.forms.append({**given, "fields": set()})
        if tag == "input" and self.forms:
            self.forms[-1]["fields"].add(given.get("name"))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> ends nothing")


class Browser:
    """One, and the daemon that it is shown pages of."""

    def __init__(self, s: Stage, server: TestServer) -> None:
        self.stage = s
        self.engine = s.engine
        self.server = server
        self.http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))

    def url(self, path: str) -> yarl.URL:
        return self.server.make_url(path)

    def token(self, *scopes: Scope, project: str = "") -> str:
        who = DAEMON._replace(tenant=project) if project else DAEMON
        with asked_by(who):
            request = TokenRequest(name=f"t{len(self.engine.tokens.all())}", scopes=list(scopes), life=3600.0)
            return self.engine.tokens.create(request).secret

    async def ask(self, method: str, path: str, **form: str) -> tuple[int, str, dict[str, str]]:
        """Status, text and headers; redirects are not followed."""
        data = form if method == "POST" else None
        headers = {"Origin": form.pop("origin")} if "origin" in form else {}
        url = self.url(path)
        async with self.http.request(method, url, data=data, allow_redirects=False, headers=headers) as answer:
            return answer.status, await answer.text(), dict(answer.headers)

    async def log_in(self, token: str) -> None:
        status, text, _ = await self.ask("POST", "/login", token=token)
        assert status == 303, text

    async def csrf(self, page: str = "/p/-/containers") -> str:
        _, text, _ = await self.ask("GET", page)
        if not text:
            _, text, _ = await self.ask("GET", "/")
        found = re.search(r'name="csrf" value="([^"]+)"', text)
        assert found, text
        return found[1]


@contextlib.asynccontextmanager
async def browser(template: Path, **settings: Any) -> AsyncIterator[Browser]:
    with stage(template, **settings) as s:
        engine = s.prepare().engine
        await engine.open()
        async with TestServer(build(engine, Identity(engine.tokens, {}, engine.tenancy.entry))) as server:
            found = Browser(s, server)
            try:
                yield found
            finally:
                await found.http.close()
        await engine.close(keep_running=False)


async def pieces() -> AsyncIterator[bytes]:
    """A body of which nobody says how long it is."""
    yield b"a"


def filled(path: str, name: str) -> str:
    return path.replace("{project}", "-").replace("{name}", name)


async def test_nobody_sees_a_page_without_a_session(template: Path) -> None:
    async with browser(template) as b:
        for page in PAGES:
            status, text, headers = await b.ask(page.method, filled(page.path, "a"))
            assert (status, text, headers.get("Location")) == (303, "", "/login"), page.path
        assert (await b.ask("GET", "/"))[0] == 303
        assert (await b.ask("POST", "/logout"))[0] == 303
        status, text, _ = await b.ask("POST", "/login", token="hyper_1_2")
        assert status == 401 and "the token is not known, or is good no more." in text


async def test_all_pages_are_whole_and_keep_the_policy(template: Path) -> None:
    async with browser(template) as b:
        await b.log_in(b.token("admin", "host"))
        made = await b.stage.run("a", "sleep", "100", env=["X=<script>alert(1)</script>"], labels={"<b>": "</b>"})
        await b.engine.volumes.create(VolumeSpec(name="v"))
        for page in PAGES:
            passed = (*STREAMS, "/invoice.{name}", "/members")
            if page.method != "GET" or page.path.endswith(passed) or "/cluster" in page.path:
                continue
            status, text, headers = await b.ask("GET", filled(page.path, made))
            assert status == 200, (page.path, text)
            assert Markup(text).wrong == [], page.path
            if not page.path.endswith("/terminal"):
                assert headers["Content-Security-Policy"] == CSP
            assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
            assert "alert(1)" not in text
        for path in ("/login", "/", "/p/-/containers/none", "/nowhere"):
            status, text, _ = await b.ask("GET", path)
            assert Markup(text).wrong == [], path
        assert status == 404


async def test_a_container_from_its_form_to_its_end(template: Path) -> None:
    async with browser(template) as b:
        await b.log_in(b.token("operate"))
        csrf = await b.csrf()
        form = {"csrf": csrf, "image": "box", "name": "web", "command": "sleep '100'", "size": "S2", "env": "A=1\n"}
        status, text, _ = await b.ask("POST", "/p/-/containers", **{**form, "image": "<i>none</i>"})
        assert status == 200 and "&lt;i&gt;none" in text and "<i>none" not in text
        assert 'value="web"' in text and 'role="alert"' in text  # what was written is there still
        status, text, headers = await b.ask("POST", "/p/-/containers", **form)
        found = b.engine.registry.container("web")
        assert (status, headers["Location"]) == (303, f"/p/-/containers/{found.id}"), text
        assert found.state.status == "running" and found.process.args == ["sleep", "100"]
        assert found.spec.size == "S2" and found.owner.startswith("token:") and "A=1" in found.process.env
        for verb, status_after in (("stop", "exited"), ("start", "running"), ("restart", "running")):
            assert (await b.ask("POST", f"/p/-/containers/web/{verb}", csrf=csrf))[0] == 303
            assert b.engine.registry.container("web").state.status == status_after
        assert (await b.ask("POST", "/p/-/containers/web/remove", csrf=csrf))[2]["Location"] == "/p/-/containers"
        assert b.engine.registry.containers() == []


async def test_files_are_fetched_sent_and_removed(template: Path) -> None:
    async with browser(template) as b:
        await b.log_in(b.token("operate"))
        made = await b.stage.run("a", "sleep", "100")
        csrf, path, name = await b.csrf(), f"/p/-/containers/{made}/files", "<b> & #1"
        data = os.urandom(700_001)
        sent = {"path": "/srv", "name": name}
        for headers, body, status in (
            ({"X-CSRF": "wrong"}, data, 403),
            ({"X-CSRF": csrf, "Origin": "https://evil.example"}, data, 403),
            ({"X-CSRF": csrf}, pieces(), 411),
            ({"X-CSRF": csrf}, data, 204),
            ({"X-CSRF": csrf}, b"", 204),
            ({"X-CSRF": csrf}, data, 204),
        ):
            url = b.url(f"{path}/contents").with_query(sent)
            async with b.http.post(url, data=body, headers=headers) as answer:
                assert answer.status == status, await answer.text()
        for wrong in ("a/b", "..", "", "a" * 300):
            url = b.url(f"{path}/contents").with_query(path="/srv", name=wrong)
            async with b.http.post(url, data=b"x", headers={"X-CSRF": csrf}) as answer:
                assert answer.status == 400 and "is no name of a file" in await answer.text(), wrong
        status, text, _ = await b.ask("GET", f"{path}?path=/srv")
        assert status == 200 and "&lt;b&gt; &amp; #1" in text and "683.6KiB" in text, text
        assert Markup(text).wrong == []
        async with b.http.get(b.url(f"{path}/contents").with_query(path=f"/srv/{name}")) as answer:
            assert await answer.read() == data
            assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''%3Cb%3E%20%26%20%231"
        for query, why in (("?path=/none", "no such path"), ("?path=srv", "absolute path")):
            status, text, _ = await b.ask("GET", f"{path}/contents{query}")
            assert status in (400, 404) and why in text, text
        assert (await b.ask("POST", f"{path}/directory", csrf=csrf, at="/srv", name="new"))[0] == 303
        for root in ("/", "//", "", "/srv/.."):
            status, text, _ = await b.ask("POST", f"{path}/remove", csrf=csrf, at=root)
            assert status == 400 and "root of a container" in text, root
        found = await b.ask("POST", f"{path}/remove", csrf=csrf, at=f"/srv/{name}")
        assert found[2]["Location"] == f"{path}?path=%2Fsrv"
        assert (await b.ask("GET", f"{path}?path=/srv"))[0] == 404
        await b.stage.call(b.engine.containers.stop("a"))
        assert "its files are shown while it runs" in (await b.ask("GET", path))[1]


async def test_forms_of_others_do_nothing(template: Path) -> None:
    async with browser(template) as b:
        await b.log_in(b.token("operate"))
        await b.stage.run("a", "sleep", "100")
        csrf = await b.csrf()
        posts = [filled(p.path, "a") for p in PAGES if p.method == "POST"]
        for path in posts:
            status, text, _ = await b.ask("POST", path, name="a", image="box")
            assert status == 403 and "not from a page of your session" in text, path
            status, text, _ = await b.ask("POST", path, name="a", csrf=csrf, origin="https://evil.example")
            assert status == 403 and "a page of another site" in text, path
        assert b.stage.status("a") == "running"


async def test_who_may_only_look(template: Path) -> None:
    async with browser(template) as b:
        await b.log_in(b.token("read"))
        made = await b.stage.run("a", "sleep", "100")
        csrf = await b.csrf()
        for page in PAGES:
            if (page.path.endswith(STREAMS) or "/cluster" in page.path) and page.scope == "read":
                continue
            status, text, _ = await b.ask(page.method, filled(page.path, made), csrf=csrf, name="x", image="box")
            assert status == (200 if page.scope == "read" else 403), (page.path, text)
            assert status == 403 or "danger" not in text  # no button that would be refused
        assert b.stage.status("a") == "running"


async def test_a_session_ends_with_its_token(template: Path) -> None:
    async with browser(template) as b:
        token = b.token("operate")
        await b.log_in(token)
        assert (await b.ask("GET", "/p/-/containers"))[0] == 200
        b.engine.tokens.revoke(token.split("_")[1])
        assert (await b.ask("GET", "/p/-/containers"))[2]["Location"] == "/login"
        await b.log_in(b.token("operate"))
        assert (await b.ask("POST", "/logout", csrf="wrong"))[0] == 403
        assert (await b.ask("POST", "/logout", csrf=await b.csrf()))[0] == 303
        assert (await b.ask("GET", "/p/-/containers"))[0] == 303


@pytest.mark.parametrize("end", ["log-out", "time", "another"])
async def test_what_is_open_ends_with_its_session(template: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    async with browser(template) as b:
        token = b.token("operate")
        await b.log_in(token)
        csrf = await b.csrf()
        async with b.http.get(b.url("/p/-/events/live")) as stream:
            assert stream.status == 200
            if end == "log-out":
                assert (await b.ask("POST", "/logout", csrf=csrf))[0] == 303
            elif end == "time":
                monkeypatch.setattr(module, "LIFE", -1.0)
                assert (await b.ask("GET", "/p/-/containers"))[2]["Location"] == "/login"
            else:
                monkeypatch.setattr(module, "_OF_ONE", 1)
                await b.log_in(token)
            async with asyncio.timeout(20):
                with contextlib.suppress(aiohttp.ClientError):
                    await stream.read()


async def test_no_answer_lasts_longer_than_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = asyncio.Event()

    class Connection(asyncio.Transport):
        def abort(self) -> None:
            gone.set()

    session = Session("t", begun=module.clock.seconds() - LIFE, used=0.0)
    with session.held(Connection()):
        async with asyncio.timeout(20):
            await gone.wait()
    monkeypatch.setattr(module.clock, "seconds", lambda: session.begun + 2 * IDLE)
    session.used = session.begun
    assert session.is_over
    with session.held(Connection()):
        assert not session.is_over  # who works in a terminal does not ask for pages


async def test_forms_are_small_and_of_this_site(template: Path) -> None:
    async with browser(template) as b:
        await b.log_in(b.token("operate"))
        csrf = await b.csrf()

        async def pieces() -> AsyncIterator[bytes]:  # of which nobody says how many come
            yield b"csrf=" + csrf.encode() + b"&name="
            for _ in range(80):
                yield b"a" * 1024

        url = "/p/-/volumes"
        plain = {"Content-Type": "application/x-www-form-urlencoded"}
        for path, data, headers, status in (
            (url, pieces(), plain, 413),
            ("/login", pieces(), plain, 413),
            (url, b"csrf=" + csrf.encode() + b"&name=%ff", plain, 400),
            (url, aiohttp.FormData({"csrf": csrf, "name": "v"}, default_to_multipart=True), {}, 415),
            ("/login", {"token": b.token("read")}, {"Origin": "https://evil.example"}, 403),
            ("/logout", {"csrf": csrf}, {"Origin": "null"}, 403),
        ):
            async with b.http.post(b.url(path), data=data, headers=headers, allow_redirects=False) as answer:
                assert answer.status == status, (path, await answer.text())
        assert (await b.ask("GET", "/p/-/containers"))[0] == 200
        made = await b.stage.run("a", "sleep", "100")
        for count, why in (("9" * 5000, "invalid count"), ("999999999", "too many")):
            status, text, _ = await b.ask("POST", f"/p/-/containers/{made}/fork", csrf=csrf, count=count)
            assert status == 400 and why in text


async def test_volumes_of_snapshots(template: Path) -> None:
    async with browser(template) as b:
        await b.engine.volumes.create(VolumeSpec(name="data"))
        await b.engine.volume_snapshots.create(VolumeSnapshotRequest(volume="data", name="shot"), Progress())
        place = "/p/-/volume-snapshots/shot"
        await b.log_in(b.token("read"))
        text = (await b.ask("GET", "/p/-/volumes"))[1]
        assert ">shot</th><td>data</td>" in text and place not in text and Markup(text).wrong == []
        await b.log_in(b.token("operate"))
        csrf = await b.csrf("/p/-/volumes")
        assert place in (await b.ask("GET", "/p/-/volumes"))[1]
        assert (await b.ask("POST", f"{place}/volume", csrf=csrf, name="data"))[0] == 409
        assert (await b.ask("POST", f"{place}/volume", csrf=csrf, name="again"))[0] == 303
        assert b.engine.registry.volume("again").size == b.engine.registry.volume("data").size
        assert (await b.ask("POST", f"{place}/remove", csrf=csrf))[0] == 303
        assert b.engine.volume_snapshots.all() == []
        assert (await b.ask("POST", f"{place}/remove", csrf=csrf))[0] == 404


async def test_a_shell_ends_with_a_browser_that_is_gone(template: Path) -> None:
    async with browser(template) as b:
        await b.log_in(b.token("operate"))
        made = await b.stage.run("a", "sleep", "100")
        b.stage.guest(b.stage.machine("a")).programs["/bin/sh"] = PROGRAMS["cat"]
        async with b.http.ws_connect(b.url(f"/p/-/containers/{made}/terminal/socket")) as socket:
            await socket.send_bytes(b"x")
            assert await socket.receive_bytes(timeout=20) == b"x"
            (shell,) = b.engine.execs.of(made)
            assert b.server.runner and b.server.runner.server
            for connection in b.server.runner.server.connections:  # without a word, as of a computer that is off
                if connection.transport:
                    connection.transport.abort()
            async with asyncio.timeout(20):
                await shell.ended.wait()


async def test_projects_do_not_see_each_other(template: Path) -> None:
    async with browser(template) as b:
        tenancy = b.engine.tenancy
        tenancy.organisations.create(OrganisationRequest(name="blue"))
        web, other = (tenancy.projects.create(ProjectRequest(name=name)) for name in ("web", "other"))
        tenancy.projects.limit(web.id, Quota(pods=3))
        with asked_by(Principal("token:x", other.id)):
            await b.engine.volumes.create(VolumeSpec(name="theirs"))
        theirs = await b.stage.run("of-no-project", "sleep", "100")
        await b.log_in(b.token("operate", project=web.id))
        assert (await b.ask("GET", "/"))[2]["Location"] == f"/p/{web.id}/containers"
        others = f"/p/{other.id}/containers", "/p/nothing/containers", f"/p/{web.id}/containers/{theirs}"
        for path in (*others, "/p/-/containers/x"):
            assert (await b.ask("GET", path))[0] == 404, path
        assert "theirs" not in (await b.ask("GET", f"/p/{web.id}/volumes"))[1]
        _, text, _ = await b.ask("GET", f"/p/{web.id}/events")
        assert "project create" in text and "volume create" not in text and "of-no-project" not in text
        _, text, _ = await b.ask("GET", f"/p/{web.id}/quota")
        assert "Of project web." in text and "no limit" in text


async def test_pods_in_the_cluster(template: Path) -> None:
    cluster = FakeCluster()
    async with browser(template, cluster=Ports(cluster, FakeLedgers())) as b:
        b.engine.tenancy.organisations.create(OrganisationRequest(name="blue"))
        web = b.engine.tenancy.projects.create(ProjectRequest(name="web", organisation="blue"))
        assert b.engine.namespaces
        await b.engine.namespaces.look()
        assert cluster.run(web.id, "shop")
        await b.log_in(b.token("operate", project=web.id))
        status, text, _ = await b.ask("GET", f"/p/{web.id}/cluster")
        assert status == 200 and Markup(text).wrong == [] and "node1" in text and ">shop</a>" in text
        status, text, _ = await b.ask("GET", f"/p/{web.id}/cluster/shop")
        assert status == 200 and Markup(text).wrong == [] and "shop says" in text
        csrf = await b.csrf(f"/p/{web.id}/cluster")
        assert (await b.ask("POST", f"/p/{web.id}/cluster/shop/stop", csrf=csrf))[0] == 303
        assert "There are no Pods" in (await b.ask("GET", f"/p/{web.id}/cluster"))[1]
        assert (await b.ask("GET", f"/p/{web.id}/cluster/shop"))[0] == 404
        cluster.answers = False
        status, text, _ = await b.ask("GET", f"/p/{web.id}/cluster")
        assert status == 503 and "the cluster does not answer" in text


async def test_the_host_and_organisations_are_the_administrators(template: Path) -> None:
    async with browser(template) as b:
        tenancy = b.engine.tenancy
        await b.log_in(b.token("admin"))
        csrf, path = await b.csrf(), "/p/-/organisations"
        assert (await b.ask("POST", path, csrf=csrf, name="blue"))[0] == 303
        (blue,) = tenancy.organisations.all()
        assert (await b.ask("POST", f"{path}/{blue.id}/projects", csrf=csrf, name="web"))[0] == 303
        (web,) = tenancy.projects.all()
        tenancy.projects.limit(web.id, Quota(vcpus=4))
        assert (await b.ask("POST", f"{path}/{web.id}/quota", csrf=csrf, quota="pods=3 memory=2g"))[0] == 303
        assert tenancy.projects.inspect(web.id).quota == Quota(pods=3, memory=2 << 30, vcpus=4)
        for quota, why in (("pods", "cannot be read"), ("", "cannot be read"), ("dogs=3", "no quota of"),
                           ("pods=x", "invalid quota")):  # fmt: skip
            status, text, _ = await b.ask("POST", f"{path}/{web.id}/quota", csrf=csrf, quota=quota)
            assert status == 400 and why in text, quota
        b.stage.give_image(web.id)
        with asked_by(Principal("token:x", web.id)):
            made = await b.engine.containers.create(ContainerSpec(image=IMAGE, name="a", command=["sleep", "100"]))
            await b.engine.containers.start(made.id)
        status, text, _ = await b.ask("GET", "/p/-/host")
        assert status == 200 and '<th scope="row">web</th><td>1</td>' in text and Markup(text).wrong == []
        status, text, _ = await b.ask("GET", path)
        assert 'value="pods=3 vcpus=4 memory=2g"' in text and Markup(text).wrong == [], text
        for page in ("host", "organisations"):  # in a project there is no host
            assert (await b.ask("GET", f"/p/{web.id}/{page}"))[0] == 404
            assert f"/{page}" not in (await b.ask("GET", f"/p/{web.id}/containers"))[1]
        for token in (b.token("operate"), b.token("operate", "manage", project=web.id)):
            await b.log_in(token)
            for page in ("host", "organisations"):
                assert (await b.ask("GET", f"/p/-/{page}"))[0] in (403, 404)


async def test_deployments_and_jobs(template: Path) -> None:
    async with browser(template) as b:
        await b.log_in(b.token("operate"))
        csrf, path = await b.csrf(), "/p/-/workloads"
        assert "no deployments yet" in (await b.ask("GET", path))[1]
        sleep = ContainerSpec(image=IMAGE, command=["sleep", "100"])
        b.engine.deployments.create(DeploymentRequest(name="web", container=sleep, replicas=0))
        b.engine.crons.create(CronRequest(name="nightly", schedule="@daily", container=sleep))
        assert (await b.ask("POST", "/p/-/jobs/nightly/run", csrf=csrf))[0] == 303
        _, text, _ = await b.ask("GET", path)
        assert "0 of 0" in text and "<code>@daily</code> UTC" in text and Markup(text).wrong == []
        for _ in range(2):
            assert (await b.ask("POST", "/p/-/jobs/nightly/pause", csrf=csrf))[0] == 303
        assert not b.engine.crons.info("nightly").paused
        assert (await b.ask("POST", "/p/-/deployments/web/scale", csrf=csrf, replicas="x"))[0] == 400
        assert (await b.ask("POST", "/p/-/deployments/web/rollback", csrf=csrf))[0] == 409
        assert (await b.ask("POST", "/p/-/deployments/web/remove", csrf=csrf))[0] == 303
        assert (await b.ask("POST", "/p/-/jobs/nightly/remove", csrf=csrf))[0] == 303
        assert b.engine.deployments.all() == [] and b.engine.crons.all() == []


async def test_what_a_project_costs_is_for_its_owners(template: Path) -> None:
    async with browser(template) as b:
        tenancy = b.engine.tenancy
        tenancy.organisations.create(OrganisationRequest(name="blue"))
        web = tenancy.projects.create(ProjectRequest(name="web"))
        b.engine.accounts.bills.put_prices(PRICES)
        b.engine.accounts.credit("blue", CreditRequest(amount=20_000_000, reason="begin"))
        with asked_by(Principal("token:x", web.id)):
            await b.engine.volumes.create(VolumeSpec(name="v", size=SCRATCH))
        await b.log_in(b.token("read", project=web.id))
        _, text, _ = await b.ask("GET", f"/p/{web.id}/usage")
        assert "volume" in text and "EUR" not in text
        assert (await b.ask("GET", f"/p/{web.id}/usage/invoice.csv"))[0] == 403
        await b.log_in(b.token("read", "audit", project=web.id))
        _, text, _ = await b.ask("GET", f"/p/{web.id}/usage")
        assert "20.00 EUR" in text and Markup(text).wrong == []
        status, text, headers = await b.ask("GET", f"/p/{web.id}/usage/invoice.csv")
        assert status == 200 and headers["Content-Type"].startswith("text/csv") and "volume" in text
        assert (await b.ask("GET", f"/p/{web.id}/usage/invoice.doc"))[0] == 404


def test_a_session_is_over_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(module.clock, "seconds", lambda: now)
    found = Sessions()
    used, idle = found.begin("t"), found.begin("t")
    while now < LIFE - IDLE / 2:
        now += IDLE / 2
        assert found.find(used).token == "t"
    for cookie in (idle, "", "x"):
        with pytest.raises(Unauthorized, match="the session is over"):
            found.find(cookie)
    now = LIFE + 1
    with pytest.raises(Unauthorized):
        found.find(used)


async def test_two_consoles_of_one_host_have_a_session_each(template: Path) -> None:
    """Cookies know no ports: what one sets comes to the other, too."""
    async with browser(template) as b:
        await b.log_in(b.token("admin"))
        async with TestServer(build(b.engine, Identity(b.engine.tokens, {}, b.engine.tenancy.entry))) as other:
            first, b.server = b.server, other
            assert (await b.ask("GET", "/p/-/containers"))[0] == 303
            await b.log_in(b.token("read"))
            for server in (first, other):
                b.server = server
                assert (await b.ask("GET", "/p/-/containers"))[0] == 200
        b.server = first


def test_with_tls_the_cookie_is_the_hosts() -> None:
    request = SimpleNamespace(secure=True, transport=None)
    assert name_of_cookie(request).startswith("__Host-")  # type: ignore[arg-type]
