# SPDX-License-Identifier: Apache-2.0
"""Organisations, projects and users: made, seen by whom it may concern, and what their roles let them do."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.engine.principal import asked_by
from hypercontainer.errors import NotFound
from hypercontainer.hyperd.server_tls import server_context
from hypercontainer.images.layout import Layout
from hypercontainer.model.egress import EgressPolicy
from hypercontainer.model.pods import VolumeSpec
from hypercontainer.model.principal import Principal, Scope
from hypercontainer.model.quotas import Amounts

from .served import Answer, Served, served
from .stage import IMAGE
from .test_tls import Site


@dataclass
class Cloud:
    """Two organisations with a project each, both called `web`, and one more of the first."""

    s: Served

    async def ask(self, method: str, path: str, body: Any = None, *, project: str = "", token: str = "") -> Answer:
        return await self.s.ask(
            method, f"/v1{path}", body, token=token, headers={"Hyper-Project": project} if project else None
        )

    async def project_id(self, project: str) -> str:
        return str((await self.ask("GET", f"/projects/{project.replace('/', '%2F')}")).json["id"])

    async def give_image(self, project: str) -> None:
        """What a pull would bring."""
        tenant = await self.project_id(project)
        entry = Layout(self.s.stage.paths.images).names()[IMAGE]
        Layout(self.s.stage.paths.images, lambda: tenant).set_name(IMAGE, entry)

    async def made(self, path: str, **body: Any) -> str:
        got = await self.ask("POST", path, body)
        assert got.status == 201, got.body
        return str(got.json["id"])

    async def token(self, project: str, *scopes: Scope, user: str = "", name: str = "t") -> str:
        got = await self.ask("POST", "/tokens", {"name": name, "scopes": scopes, "user": user}, project=project)
        assert got.status == 201, got.body
        return str(got.json["secret"])

    async def member(self, organisation: str, user: str, role: str, token: str = "") -> Answer:
        return await self.ask(
            "PUT", f"/organisations/{organisation}/members", {"user": user, "role": role}, token=token
        )


@contextlib.asynccontextmanager
async def cloud(template: Path, **settings: Any) -> AsyncIterator[Cloud]:
    async with served(template, **settings) as s:
        c = Cloud(s)
        for organisation, projects in (("blue", ("web", "db")), ("red", ("web",))):
            await c.made("/organisations", name=organisation)
            for project in projects:
                await c.made("/projects", name=project, organisation=organisation)
        yield c


async def test_without_projects_nothing_is_told_of_any(template: Path) -> None:
    async with served(template) as s:
        made = await s.ask("POST", "/v1/containers", {"image": IMAGE, "name": "a"})
        assert made.status == 201 and b"tenant" not in made.body
        assert (await s.ask("GET", "/v1/projects")).json == (await s.ask("GET", "/v1/organisations")).json == []
        assert (await s.ask("POST", "/v1/projects", {"name": "web"})).json["message"] == "there is no organisation yet"


async def test_what_is_made_is_told_renamed_and_removed(template: Path) -> None:
    async with cloud(template) as c:
        found = (await c.ask("GET", "/organisations")).json
        assert [(o["name"], o["projects"]) for o in found] == [("blue", ["db", "web"]), ("red", ["web"])]
        for key in ("blue/web", (await c.ask("GET", "/projects/blue%2Fweb")).json["id"]):
            got = (await c.ask("GET", f"/projects/{key.replace('/', '%2F')}")).json
            assert (got["name"], got["organisation"]) == ("web", "blue")
        for method, path, body, status, why in (
            ("GET", "/projects/web", None, 409, "several organisations have a project web"),
            ("GET", "/projects/none", None, 404, "no such project: none"),
            ("POST", "/projects", {"name": "x"}, 400, "the organisation is not said"),
            ("POST", "/projects", {"name": "x", "organisation": "green"}, 404, "no such organisation: green"),
            ("POST", "/projects", {"name": "web", "organisation": "red"}, 409, "'web' is taken by another project"),
            ("POST", "/projects", {"name": "a/b", "organisation": "red"}, 400, "invalid project name"),
            ("POST", "/organisations", {"name": "red"}, 409, "'red' is taken by another organisation"),
            ("DELETE", "/organisations/red", None, 409, "the organisation red has projects: web"),
            ("POST", "/projects/db/rename?name=web", None, 409, "'web' is taken"),
            ("PUT", "/organisations/red/members", {"user": "nobody", "role": "owner"}, 404, "no such user: nobody"),
            ("PUT", "/organisations/red/members", {"user": "nobody", "role": "king"}, 400, "role"),
            ("DELETE", "/organisations/red/members?user=nobody", None, 404, "no such member of red: nobody"),
        ):
            got = await c.ask(method, path, body)
            assert got.status == status and why in got.json["message"], (path, got.body)
        assert (await c.ask("POST", "/projects/db/rename?name=store")).json["name"] == "store"
        assert (await c.ask("POST", "/organisations/red/rename?name=green")).json["projects"] == ["web"]
        assert (await c.ask("DELETE", "/projects/green%2Fweb")).status == 200
        assert (await c.ask("DELETE", "/organisations/green")).status == 200
        assert [o["name"] for o in (await c.ask("GET", "/organisations")).json] == ["blue"]


async def test_a_project_that_has_something_stays(template: Path) -> None:
    async with cloud(template) as c:
        await c.give_image("db")
        got = await c.ask("POST", "/containers", {"image": IMAGE, "name": "a"}, project="db")
        assert got.status == 201 and got.json["tenant"]
        assert (await c.ask("POST", "/volumes", {"name": "v"}, project="db")).status == 201
        refused = await c.ask("DELETE", "/projects/db")
        assert refused.status == 409
        assert refused.json["message"] == "the project db is not empty: it has 1 container, 1 volume"
        assert (await c.ask("DELETE", "/containers/a", project="db")).status in (200, 204)
        assert (await c.ask("DELETE", "/volumes/v", project="db")).status == 204
        token = await c.token("db", "read")
        assert (await c.ask("GET", "/containers", token=token)).json == []
        assert (await c.ask("DELETE", "/projects/db")).status == 200
        assert (await c.ask("GET", "/containers", token=token)).status == 401
        assert (await c.ask("GET", "/containers", project="db")).json["message"] == "no such project: db"


async def test_nothing_is_made_in_a_project_that_is_gone(template: Path) -> None:
    async with cloud(template) as c:
        engine, id_ = c.s.stage.engine, await c.project_id("db")
        asker = Principal("user:ann", id_)
        with asked_by(asker), engine.registry.quotas.admitted({"x": Amounts(volumes=1)}):  # as while it is made
            refused = await c.ask("DELETE", "/projects/db")
            assert refused.status == 409
            assert refused.json["message"] == "the project db is not empty: it has something that is being made"
        assert (await c.ask("DELETE", "/projects/db")).status == 200
        with asked_by(asker), pytest.raises(NotFound, match="the project is gone"):  # what was asked a moment before
            await engine.volumes.create(VolumeSpec(name="v"))
        assert engine.registry.volumes() == []


async def test_records_outlive_the_daemon(template: Path) -> None:
    async with cloud(template) as c:
        await c.made("/users", name="ann", email="ann@example.org")
        assert (await c.member("blue", "ann", "operator")).status == 200
        told = [(await c.ask("GET", p)).json for p in ("/organisations", "/projects", "/users")]
        assert told[2][0]["organisations"] == ["blue"] and told[0][0]["members"][0]["role"] == "operator"
        await c.s.stage.engine.close(keep_running=True)
        again = c.s.stage.prepare().engine
        await again.open()
        found = again.tenants
        assert [o.name for o in found.organisations()] == ["blue", "red"]
        assert [p.name for p in found.projects()] == ["db", "web", "web"]
        assert found.role(found.users()[0].id, found.organisations()[0].id) == "operator"
        again.registry.journal.close()


ROLES: dict[str, set[Scope]] = {
    "viewer": {"read"}, "operator": {"read", "operate"}, "auditor": {"audit"},
    "owner": {"read", "operate", "manage", "audit"},
}  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
async def test_a_members_token_can_do_what_the_role_can(template: Path, role: str) -> None:
    async with cloud(template) as c:
        await c.made("/users", name="ann")
        await c.member("blue", "ann", role)
        whole = await c.ask("POST", "/tokens", {"name": "x", "scopes": ["admin"], "user": "ann"}, project="db")
        assert whole.status == 403
        token = await c.token("db", *sorted(ROLES[role]), user="ann")
        asked: dict[str, tuple[Scope, ...]] = {
            "GET /containers": ("read",), "POST /containers/none/start": ("operate",), "GET /tokens": ("manage",),
            "GET /projects": ("read", "audit"), "GET /users": ("admin",),
        }  # fmt: skip
        for request, scopes in asked.items():
            got = await c.ask(*request.split(), token=token)
            assert (got.status != 403) == bool(ROLES[role] & set(scopes)), (request, got.body)
        assert [p["name"] for p in (await c.ask("GET", "/projects", token=token)).json] == ["db", "web"]


async def test_a_role_that_is_taken_away_is_gone_at_once(template: Path) -> None:
    async with cloud(template) as c:
        await c.made("/users", name="ann")
        await c.member("blue", "ann", "operator")
        token = await c.token("db", "operate", user="ann")
        assert (await c.ask("POST", "/volumes", {"name": "v"}, token=token)).status == 201
        async with c.s.listening(token):  # what is open was opened by another role, and ends
            await c.member("blue", "ann", "viewer")
        assert (await c.ask("POST", "/volumes", {"name": "w"}, token=token)).status == 403
        assert (await c.ask("GET", "/volumes", token=token)).status == 200
        assert (await c.ask("DELETE", "/organisations/blue/members?user=ann")).json["members"] == []
        assert (await c.ask("GET", "/volumes", token=token)).status == 401


async def test_a_user_who_goes_takes_their_tokens_along(template: Path) -> None:
    async with cloud(template) as c:
        await c.made("/users", name="ann")
        await c.member("blue", "ann", "owner")
        token = await c.token("db", "read", user="ann")
        assert (await c.ask("DELETE", "/users/ann")).status == 200
        assert (await c.ask("GET", "/volumes", token=token)).status == 401
        assert (await c.ask("GET", "/organisations/blue")).json["members"] == []
        assert (await c.ask("GET", "/users/ann")).status == 404


async def test_owners_do_what_is_theirs_and_no_more(template: Path) -> None:
    async with cloud(template) as c:
        for name, organisation in (("ann", "blue"), ("bob", "blue"), ("eve", "red")):
            await c.made("/users", name=name)
            await c.member(organisation, name, "owner" if name != "bob" else "viewer")
        ann = await c.token("db", "manage", "read", user="ann")
        assert (await c.ask("POST", "/projects", {"name": "new"}, token=ann)).json["organisation"] == "blue"
        assert (await c.member("blue", "bob", "operator", ann)).status == 200
        for user in ("eve", "nobody"):  # she is there, and not for them
            got = await c.member("blue", user, "viewer", ann)
            assert (got.status, got.json["message"]) == (404, f"no such user: {user}")
        for key in ("red", "none"):
            got = await c.ask("GET", f"/organisations/{key}", token=ann)
            assert (got.status, got.json["message"]) == (404, f"no such organisation: {key}")
            got = await c.ask("POST", "/projects", {"name": "x", "organisation": key}, token=ann)
            assert (got.status, got.json["message"]) == (404, f"no such organisation: {key}")
            got = await c.ask("GET", "/volumes", token=ann, project=f"{key}/web")
            assert (got.status, got.json["message"]) == (404, f"no such project: {key}/web")
        assert (await c.member("blue", "ann", "viewer", ann)).status == 409  # nobody would own it
        assert (await c.ask("POST", "/organisations", {"name": "mine"}, token=ann)).status == 403
        bob = await c.token("db", "read", user="bob", name="bob")
        assert (await c.ask("POST", "/projects", {"name": "x"}, token=bob)).status == 403


async def test_a_projects_own_token_is_for_that_project(template: Path) -> None:
    async with cloud(template) as c:
        token = await c.token("db", "operate")
        assert [p["name"] for p in (await c.ask("GET", "/projects", token=token)).json] == ["db"]
        assert (await c.ask("GET", "/organisations", token=token)).json[0]["members"] == []
        assert (await c.ask("GET", "/volumes", token=token, project="db")).status == 200
        assert (await c.ask("GET", "/volumes", token=token, project="blue/web")).status == 404
        for scopes in (["admin"], ["host"], ["operate", "host"]):
            got = await c.ask("POST", "/tokens", {"name": "x", "scopes": scopes}, project="db")
            assert got.status == 403 and "a project's token never has the scope" in got.json["message"]
        of_host = c.s.token("operate")
        assert (await c.ask("GET", "/volumes", token=of_host, project="db")).status == 404
        assert (await c.ask("GET", "/projects", token=of_host)).json == []
        nobodys = await c.ask("POST", "/tokens", {"name": "x", "scopes": ["read"], "user": "ann"})
        assert nobodys.status == 400 and "a user's token is one in a project" in nobodys.json["message"]


async def test_a_certificate_is_a_user(template: Path, tmp_path: Path) -> None:
    site = Site(tmp_path)
    pair = site.ca.sign("ann@host")
    async with cloud(template, tls=server_context(site.config), client=site.ca.client(pair)) as c:
        await c.made("/users", name="ann", certificate="ann@host")
        taken = await c.ask("POST", "/users", {"name": "bob", "certificate": "ann@host"})
        assert taken.status == 409

        async def ask(method: str, path: str, body: Any = None, project: str = "") -> Answer:
            return await c.s.ask(method, f"/v1{path}", body, tcp=True, headers={"Hyper-Project": project})

        got = await ask("GET", "/volumes")
        assert got.status == 400 and got.json["message"] == "it is not said which project is meant"
        await c.member("red", "ann", "operator")
        made = await ask("POST", "/volumes", {"name": "v"})  # there is one project: that is meant
        assert made.status == 201 and made.json["owner"] == "user:ann", made.body
        page = await c.s.ask("POST", "/v1/volumes", {"name": "x"}, tcp=True, headers={"Sec-Fetch-Site": "cross-site"})
        assert page.status == 403 and "a page of another site" in page.json["message"]
        await c.member("blue", "ann", "viewer")
        assert (await ask("GET", "/volumes")).status == 400
        assert [p["name"] for p in (await ask("GET", "/projects")).json] == ["db", "web", "web"]
        assert (await ask("POST", "/volumes", {"name": "v"}, "db")).status == 403
        assert (await ask("POST", "/volumes", {"name": "w"}, "red/web")).status == 201
        await c.member("blue", "ann", "owner")
        assert (await ask("POST", "/projects", {"name": "new", "organisation": "blue"})).status == 201
        assert (await ask("POST", "/projects", {"name": "new", "organisation": "red"})).status == 403
        await c.ask("DELETE", "/users/ann")
        assert (await ask("GET", "/volumes")).status == 403  # a certificate as any other


async def test_each_project_is_told_of_the_egress_of_its_own_pods(template: Path) -> None:
    async with cloud(template, network="bridge") as c:
        for project in ("blue/web", "red/web"):
            await c.give_image(project)
            body = {"image": IMAGE, "name": f"of-{project[:3]}", "egress": {"hosts": [{"host": "a.example"}]}}
            assert (await c.ask("POST", "/containers", body, project=project)).status == 201
            assert (await c.ask("POST", f"/containers/{body['name']}/start", project=project)).status == 200
        await c.s.stage.run("mine", egress=EgressPolicy())
        for project, pod in (("blue/web", "of-blu"), ("red/web", "of-red"), ("", "mine")):
            token = await c.token(project, "audit", name=pod) if project else ""
            told = (await c.ask("GET", "/usage/metrics", token=token)).body.decode()
            own = [line for line in told.splitlines() if line.startswith("hyper_pod_egress_")]
            organisation, _, name = project.partition("/")
            labels = f'{{organisation="{organisation}",project="{name}",pod="{pod}"}} 0'
            assert [line.removesuffix(labels) for line in own] == [
                f"hyper_pod_egress_{what}_total"
                for what in ("connections", "refused", "refused_packets", "received_bytes", "sent_bytes")
            ]


async def test_a_certificate_without_a_user_does_nothing_once_there_are_organisations(
    template: Path, tmp_path: Path
) -> None:
    site = Site(tmp_path)
    client = site.ca.client(site.ca.sign("ci@host"))
    async with served(template, tls=server_context(site.config), client=client) as s:
        assert (await s.ask("POST", "/v1/volumes", {"name": "v"}, tcp=True)).status == 201
        assert (await s.ask("POST", "/v1/users", {"name": "ann", "certificate": "ann@host"})).status == 201
        refused = await s.ask("GET", "/v1/volumes", tcp=True)
        assert refused.status == 403 and "cert:ci@host does not have" in refused.json["message"]
