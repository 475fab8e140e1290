# SPDX-License-Identifier: Apache-2.0
"""Every page of the console, asked by another project: as pages of what is not there; and what docs/caas.md says of
isolation is tested where it says so.
"""

from __future__ import annotations

import ast
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp.test_utils import TestServer

from hypercontainer.cluster.fake import FakeCluster, FakeLedgers
from hypercontainer.cluster.port import Ports
from hypercontainer.console.app import PAGES, build
from hypercontainer.console.call import Page
from hypercontainer.serving.identity import Identity

from .test_console import STREAMS, Browser
from .test_isolation import FIPS, MARK, Things, absent, everything, fill
from .test_tenancy import Cloud, cloud

FORMS = {"/containers": "image", "/snapshots": "pod"}  # forms without a thing in their address, and what names one


@asynccontextmanager
async def browser_of(c: Cloud, token: str) -> AsyncIterator[Browser]:
    engine = c.s.stage.engine
    async with TestServer(build(engine, Identity(engine.tokens, {}, engine.tenancy.entry))) as server:
        found = Browser(c.s.stage, server)
        try:
            await found.log_in(token)
            yield found
        finally:
            await found.http.close()


def plain(status: int, text: str, key: str) -> tuple[int, str]:
    """Without what was asked for."""
    return status, text.replace(key, "KEY")


def asked(page: Page, project: str, key: str) -> str:
    return page.path.replace("{project}", project).replace("{name}", key)


def cases(things: Things, project: str) -> Iterator[tuple[Page, str, str]]:
    """Pages of one's own project, each with what the other one has."""
    for page in PAGES:
        own = page.path.removeprefix("/p/{project}")
        if "{name}" in own or (page.method == "POST" and own in FORMS):
            yield from ((page, project, key) for keys in things.keys.values() for key in keys if "/" not in key)


async def test_no_page_tells_of_another_project(template: Path) -> None:
    cluster = Ports(FakeCluster(), FakeLedgers())
    async with cloud(template, own_images=True, factory=True, fips=FIPS, cluster=cluster) as c:
        await c.made("/users", name="zulu-user")
        await c.member("blue", "zulu-user", "owner")
        things = await fill(c)
        await c.give_image("red/web")
        mine, theirs = await c.project_id("red/web"), things.keys["project"][0]
        before, wrong = await everything(c), []
        async with browser_of(c, await c.token("red/web", "operate", "manage", "audit")) as b:
            _, text, _ = await b.ask("GET", f"/p/{mine}/containers")
            found = re.search(r'name="csrf" value="([^"]+)"', text)
            assert found
            form = {"csrf": found[1], "name": "mine"}

            async def answer(page: Page, project: str, key: str) -> tuple[int, str]:
                own = page.path.removeprefix("/p/{project}")
                named = {FORMS[own]: key} if own in FORMS else {}
                given = {**form, **named} if page.method == "POST" else {}
                status, said, _ = await b.ask(page.method, asked(page, project, key), **given)
                return plain(status, said, key)

            for page in PAGES:  # of the other one's project
                got = [plain(*(await answer(page, p, "zulu-box")), p) for p in (theirs, absent(theirs))]
                if got[0] != got[1] or got[0][0] < 300:
                    wrong.append(f"{page.method} {page.path} of another project: {got}")
            for page, project, key in cases(things, mine):
                said = [await answer(page, project, key), await answer(page, project, absent(key))]
                if said[0] != said[1]:
                    wrong.append(f"{page.method} {page.path} {key}: {said}")
            for page in PAGES:  # what lists one's own
                if page.method == "GET" and "{name}" not in page.path and not page.path.endswith(STREAMS):
                    status, text, _ = await b.ask("GET", asked(page, mine, ""))
                    leaks = [x for x in (*things.ids, MARK) if x[:12] in text]
                    if leaks or status >= 500:
                        wrong.append(f"{page.path}: {status}, tells of {leaks}")
        assert not wrong, "\n".join(wrong)
        assert await everything(c) == before


def test_what_is_said_of_isolation_is_tested(repository: Path) -> None:
    text = (repository / "docs/caas.md").read_text().partition("### Isolation\n")[2].partition("\n##")[0]
    named = re.findall(r"`(tests/[a-z_/]+\.py)::(test_[a-z_]+)`", text)
    assert len(named) > 5
    for path, name in named:
        tree = ast.parse((repository / path).read_text())
        functions = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in functions, f"{path} has no {name}"
