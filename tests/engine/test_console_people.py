# SPDX-License-Identifier: Apache-2.0
"""Pages of members, tokens and the audit log: what owners and auditors see and do, and others do not."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp.test_utils import TestServer

from hypercontainer.console.app import build
from hypercontainer.engine.audit import AuditSettings
from hypercontainer.serving.identity import IDENTITY

from .stage import IMAGE
from .test_console import Browser, Markup
from .test_tenancy import Cloud, cloud


@contextlib.asynccontextmanager
async def console(template: Path, tmp_path: Path) -> AsyncIterator[tuple[Cloud, Browser]]:
    """Ann owns blue, bob audits it."""
    async with cloud(template, audit=AuditSettings(tmp_path / "audit.log", size=2000, files=3)) as c:
        for name, role in (("ann", "owner"), ("bob", "auditor")):
            await c.made("/users", name=name)
            assert (await c.member("blue", name, role)).status == 200
        app = build(c.s.stage.engine, c.s.app[IDENTITY])
        async with TestServer(app) as server:
            found = Browser(c.s.stage, server)
            try:
                yield c, found
            finally:
                await found.http.close()


async def _csrf(b: Browser, path: str) -> str:
    _, text, _ = await b.ask("GET", path)
    found = re.search(r'name="csrf" value="([^"]+)"', text)
    assert found, text
    return found[1]


async def test_an_owner_manages_members_and_tokens(template: Path, tmp_path: Path) -> None:
    async with console(template, tmp_path) as (c, b):
        base = f"/p/{await c.project_id('blue/web')}"
        await b.log_in(await c.token("blue/web", "manage", "operate", user="ann"))
        for page in ("members", "tokens"):
            status, text, _ = await b.ask("GET", f"{base}/{page}")
            assert status == 200 and Markup(text).wrong == [] and "Tokens</a>" in text, text
        csrf = await _csrf(b, f"{base}/members")
        assert (await b.ask("POST", f"{base}/members", csrf="x", user="bob", role="viewer"))[0] == 403
        assert (await b.ask("POST", f"{base}/members", csrf=csrf, user="bob", role="viewer"))[0] == 303
        members = (await c.ask("GET", "/organisations/blue")).json["members"]
        assert {m["user"]: m["role"] for m in members} == {"ann": "owner", "bob": "viewer"}
        for form, why in (({"user": "bob", "role": "king"}, "the role is not said"),
                          ({"user": "eve", "role": "viewer"}, "no such user: eve")):  # fmt: skip
            status, text, _ = await b.ask("POST", f"{base}/members", csrf=csrf, **form)
            assert status in (400, 404) and why in text
        bob = next(m["id"] for m in members if m["user"] == "bob")
        assert (await b.ask("POST", f"{base}/members/{bob}/remove", csrf=csrf))[0] == 303
        status, text, _ = await b.ask("POST", f"{base}/tokens", csrf=csrf, name="ci", scope="read", life="1h", user="")
        secret = re.search(r"hyper_[0-9a-f]{12}_[\w-]{43}", text)
        assert status == 200 and secret and Markup(text).wrong == []
        assert (await c.ask("GET", "/containers", token=secret[0])).json == []
        status, text, _ = await b.ask("GET", f"{base}/tokens")
        assert "ci" in text and secret[0] not in text
        ci = secret[0].split("_")[1]
        assert (await b.ask("POST", f"{base}/tokens/{ci}/revoke", csrf=csrf))[0] == 303
        assert (await c.ask("GET", "/containers", token=secret[0])).status == 401


async def test_an_auditor_sees_what_was_asked_and_nothing_else(template: Path, tmp_path: Path) -> None:
    async with console(template, tmp_path) as (c, b):
        base = f"/p/{await c.project_id('blue/web')}"
        token = await c.token("blue/web", "audit", user="bob")
        for project in ("blue/web", "red/web"):
            name = project.replace("/", "-")
            assert (await c.ask("DELETE", f"/volumes/not-in-{name}", project=project)).status == 404
        await b.log_in(token)
        assert (await b.ask("GET", f"{base}/containers"))[2]["Location"] == f"{base}/audit"
        for page in ("audit", "events", "usage"):
            status, text, _ = await b.ask("GET", f"{base}/{page}")
            assert status == 200 and Markup(text).wrong == [] and "data-events" not in text, text
            assert ">Audit log</a>" in text and ">Containers</a>" not in text
        _, text, _ = await b.ask("GET", f"{base}/audit")
        assert "DELETE /v1/volumes/not-in-blue-web" in text and "not-in-red" not in text
        for page in ("images", "members", "tokens", "new"):
            assert (await b.ask("GET", f"{base}/{page}"))[0] == 403, page
        read = await c.ask("GET", "/audit", token=token)
        assert read.json[0]["user"] == "bob" and read.json[0]["principal"].startswith("token:")
        own = await c.project_id("blue/web")
        assert read.status == 200 and {entry["project"] for entry in read.json} == {own}
        assert read.json[0]["time"] >= read.json[-1]["time"]
        assert len((await c.ask("GET", "/audit?limit=2", token=token)).json) == 2
        refused = await c.ask("GET", "/audit?limit=0", token=token)
        assert refused.status == 400 and "is not from 1 to 10000" in refused.json["message"]
        assert len((await c.ask("GET", "/audit?limit=10000")).json) > len(read.json)  # the administrator's
        assert (await c.ask("GET", "/audit", token=await c.token("blue/web", "operate", name="o"))).status == 403


async def test_an_auditor_is_told_of_events_without_what_people_wrote(template: Path, tmp_path: Path) -> None:
    async with console(template, tmp_path) as (c, _):
        await c.give_image("blue/web")
        body = {"image": IMAGE, "name": "a", "labels": {"secret": "zulu"}, "env": ["X=zulu"], "command": ["zulu"]}
        made = await c.ask("POST", "/containers", body, project="blue/web")
        assert made.status == 201, made.body
        told = await c.ask("GET", "/events?past=1", token=await c.token("blue/web", "audit", user="bob"))
        assert told.status == 200 and b'"create"' in told.body and b"zulu" not in told.body
        assert b"zulu" in (await c.ask("GET", "/events?past=1", project="blue/web")).body


async def test_without_an_audit_log_there_is_a_sentence(template: Path) -> None:
    async with cloud(template) as c:
        got = await c.ask("GET", "/audit")
        assert got.status == 501 and got.json["message"] == "hyperd keeps no audit log"
