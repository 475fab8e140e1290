# SPDX-License-Identifier: Apache-2.0
"""hyperd with a certified OpenID provider, npm's oidc-provider: its own pages, PKCE, `iss`, device codes, real keys.

It is fetched when a test runs: exactly what `package-lock.json` names, whose digests npm checks. `make test-oidc`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.conftest import Daemon, launched
from tests.e2e.keeping import kept
from tests.e2e.packages import PLACE

from .browser import answer

HERE = Path(__file__).parent
CLIENT, SECRET = "hyper", "a secret:of the client"
_DEADLINE = 120.0  # seconds for one program


def _install(new: Path, _: Path) -> None:
    new.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, new)
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=new, check=True,
                   capture_output=True, timeout=_DEADLINE)  # fmt: skip


@contextlib.contextmanager
def provider(*words: str) -> Iterator[str]:
    """Its issuer; it ends with this."""
    digest = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    place = kept(PLACE / f"npm-{digest[:16]}", _install)
    shutil.copy(HERE / "provider.mjs", place)
    command = ["node", place / "provider.mjs", CLIENT, SECRET, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        try:
            yield next(line.strip() for line in process.stdout if line.startswith("http"))
        finally:
            process.kill()


@pytest.fixture(scope="module", autouse=True)
def _node() -> None:
    if not shutil.which("npm"):
        pytest.skip("npm is not installed: `make test-oidc` needs node 20 or newer")


@contextlib.contextmanager
def hyperd(place: Path, issuer: str, more: str = "") -> Iterator[tuple[Daemon, str]]:
    """With an organisation and a project, and the address of its console."""
    (place / "secret").write_text(f"{SECRET}\n")
    (place / "hyperd.toml").write_text(f"""
console_listen = ["tcp://127.0.0.1:0"]
[oidc]
issuer = "{issuer}"
client_id = "{CLIENT}"
client_secret_file = "{place / "secret"}"
title = "Example"
{more}
""")
    with launched(place / "root", "--config", str(place / "hyperd.toml")) as daemon:
        daemon.ctl("organisation", "create", "blue")
        daemon.ctl("project", "create", "web", "--organisation", "blue")
        found = re.search(r"http://127\.0\.0\.1:\d+", (place / "root-hyperd.log").read_text())
        assert found
        yield daemon, found[0]


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    jar = aiohttp.CookieJar(unsafe=True)  # cookies of addresses, too
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=aiohttp.ClientTimeout(_DEADLINE)) as http:
        yield http


async def enter(console: str, issuer: str, login: str) -> tuple[int, str]:
    """By the console's button; what it answers to the log-in, and the page that one sees then."""
    async with browser() as http:
        where, text = await answer(http, f"{console}/login/elsewhere", issuer, login=login)
        assert where.startswith(f"{console}/login/back"), where
        async with http.get(f"{console}/") as home:
            return home.status, text + await home.text()


async def by_code(daemon: Daemon, issuer: str, home: Path, login: str, *, abort: bool = False) -> tuple[int, str, str]:
    """`hyperctl login --oidc`, while somebody enters the code in a browser."""
    environment = {**daemon.environment, "XDG_CONFIG_HOME": str(home)}
    process = await asyncio.create_subprocess_exec(
        *daemon.command, "login", "--oidc", env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    try:
        told = (await asyncio.wait_for(process.stdout.readline(), _DEADLINE)).decode()
        address = re.search(r"Open (\S+) and enter [A-Z-]+", told)
        assert address, told
        async with browser() as http:
            await answer(http, address[1], issuer, login=login, abort=abort)
        out, err = await asyncio.wait_for(process.communicate(), _DEADLINE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return process.returncode or 0, out.decode(), err.decode()


def test_a_person_logs_in_by_the_console_and_by_hyperctl(tmp_path: Path) -> None:
    with provider("lean") as issuer, hyperd(tmp_path, issuer) as (daemon, console):
        daemon.ctl("user", "create", "ann", "--login", "ann-1")
        daemon.ctl("organisation", "member", "put", "blue", "ann", "--role", "operator")
        _, text = asyncio.run(enter(console, issuer, "ann-1"))
        assert "logged in as ann" in text and ">web<" in text
        _, text = asyncio.run(enter(console, issuer, "bob-1"))
        assert "nobody here is known at the identity provider as &#39;bob-1&#39;" in text
        status, out, err = asyncio.run(by_code(daemon, issuer, tmp_path, "ann-1"))
        kept_in = tmp_path / "hyper/token"
        assert status == 0 and "Logged in as ann until" in out and str(kept_in) in out, err
        environment = {**daemon.environment, "XDG_CONFIG_HOME": str(tmp_path), "HYPER_TOKEN_FILE": str(kept_in)}

        def ctl(*args: str) -> str:
            done = subprocess.run([*daemon.command, *args], env=environment, capture_output=True, text=True,
                                  timeout=_DEADLINE, check=True)  # fmt: skip
            return done.stdout

        assert ctl("project", "ls", "-q") == "web\n" and ctl("--project", "web", "ps", "-q") == ""
        assert ctl("logout", "--oidc") == "Logged out\n" and not kept_in.exists()
        users = [t["user"] for t in json.loads(daemon.out("token", "ls", "--format", "json"))]
        assert users == ["ann"]  # the browser's, who did not log out
        status, _, err = asyncio.run(by_code(daemon, issuer, tmp_path, "ann-1", abort=True))
        assert status == 1 and "the identity provider" in err and not kept_in.exists(), err


ROLES = """
scopes = ["openid", "profile", "email", "groups"]
user_claim = "email"
roles_claim = "groups"
roles = { ops = "blue/operator" }
"""


@pytest.mark.parametrize("where", ["token", "lean"])
def test_claims_make_users_and_give_roles(tmp_path: Path, where: str) -> None:
    """Of its ID tokens; or, as this provider does by default, of its userinfo."""
    with provider(where) as issuer, hyperd(tmp_path, issuer, ROLES) as (daemon, console):
        assert "logged in as ann" in asyncio.run(enter(console, issuer, "ann"))[1]
        [member] = json.loads(daemon.out("organisation", "inspect", "blue"))[0]["members"]
        assert (member["user"], member["role"]) == ("ann", "operator")
        assert json.loads(daemon.out("user", "inspect", "ann"))[0]["login"] == "ann@example.org"
        assert "nobody here is known" in asyncio.run(enter(console, issuer, "bob"))[1]
