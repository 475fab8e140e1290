# SPDX-License-Identifier: Apache-2.0
"""People log in by an identity provider: to the console, and by hyperctl; tokens come of it, or a sentence."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from hypercontainer.console.app import build
from hypercontainer.hyperd.oidc_config import OidcConfig
from hypercontainer.serving.identity import IDENTITY
from hypercontainer.serving.logging_in import LoggingIn
from tests.identity_provider import CLIENT, SECRET, IdentityProvider, identity_provider

from .hyperctl import call
from .test_tenancy import Cloud, cloud


@dataclass
class Doors:
    """A daemon with two organisations, its console, the provider, and one browser."""

    cloud: Cloud
    provider: IdentityProvider
    console: TestServer
    http: aiohttp.ClientSession

    async def get(self, path: str) -> tuple[int, str, dict[str, str]]:
        async with self.http.get(self.console.make_url(path), allow_redirects=False) as answer:
            return answer.status, await answer.text(), dict(answer.headers)

    async def sent(self) -> str:
        """To the provider; where it sends the browser back to."""
        status, text, headers = await self.get("/login/elsewhere")
        assert status == 303, text
        async with self.http.get(headers["Location"], allow_redirects=False) as answer:
            assert answer.status == 302, await answer.text()
            back = urlsplit(answer.headers["Location"])
        return f"{back.path}?{back.query}"

    async def enter(self) -> tuple[int, str]:
        status, text, _ = await self.get(await self.sent())
        return status, text


@contextlib.asynccontextmanager
async def doors(template: Path, tmp_path: Path, **oidc: Any) -> AsyncIterator[Doors]:
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    async with identity_provider() as provider, cloud(template) as c:
        config = OidcConfig(issuer=provider.issuer, client_id=CLIENT, client_secret_file=str(secret), **oidc)
        made = config.configuration()
        assert made
        engine = c.s.stage.engine
        identity = c.s.app[IDENTITY]
        object.__setattr__(identity, "provider", LoggingIn(made, engine.tenancy.logins))
        jar = aiohttp.CookieJar(unsafe=True)
        async with TestServer(build(engine, identity)) as server, aiohttp.ClientSession(cookie_jar=jar) as http:
            yield Doors(c, provider, server, http)


async def _ann(d: Doors, login: str = "ann-1") -> None:
    await d.cloud.made("/users", name="ann", login=login)
    assert (await d.cloud.member("blue", "ann", "operator")).status == 200


async def _ann_with_hyperctl(d: Doors, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it keeps the token of a log-in."""
    await _ann(d)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("HYPER_HOST", str(d.cloud.s.path))
    return home / "hyper" / "token"


async def test_a_browser_logs_in_and_out(template: Path, tmp_path: Path) -> None:
    async with doors(template, tmp_path, title="Example") as d:
        await _ann(d)
        _, text, _ = await d.get("/login")
        assert "Log in with Example" in text
        status, text = await d.enter()
        assert status == 200 and "logged in as ann" in text
        status, text, _ = await d.get("/")
        assert status == 200 and text.count("/containers") == 2 and "blue" in text and "red" not in text
        project = await d.cloud.project_id("db")
        status, page, _ = await d.get(f"/p/{project}/containers")
        assert status == 200
        [login] = [t for t in (await d.cloud.ask("GET", "/tokens")).json if t["user"] == "ann"]
        assert login["scopes"] == [] and login["owner"] == "user:ann" and login["expiresAt"]
        csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
        out = await d.http.post(d.console.make_url("/logout"), data={"csrf": csrf}, allow_redirects=False)
        assert out.status == 303
        assert (await d.cloud.ask("GET", "/tokens")).json == []  # the token has ended, too
        assert (await d.get("/"))[0] == 303


async def test_an_answer_is_good_once_in_the_browser_that_asked(template: Path, tmp_path: Path) -> None:
    async with doors(template, tmp_path) as d:
        await _ann(d)
        back = await d.sent()
        d.http.cookie_jar.clear()
        status, text, _ = await d.get(back)
        assert status == 401 and "the log-in was begun by another browser" in text
        for forged in (back, "/login/back?code=x&state=y", "/login/back"):
            status, text, _ = await d.get(forged)
            assert status == 401 and "the log-in was not begun here, or too long ago" in text
        back = await d.sent()
        state = back.partition("state=")[2].partition("&")[0]
        status, text, _ = await d.get(f"/login/back?state={state}&error=access_denied&error_description=no+<b>")
        assert status == 401 and "the identity provider says: no &lt;b&gt;" in text
        back = (await d.sent()).partition("&iss=")[0]
        status, text, _ = await d.get(f"{back}&iss=https://other.example")
        assert status == 401 and "the answer is another identity provider&#39;s" in text


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"iss": "https://other.example"}, "is another provider&#39;s"),
        ({"aud": "other"}, "is for another client"),
        ({"aud": [CLIENT, "other"]}, "was given to another client"),
        ({"nonce": "other"}, "is not of this log-in"),
        ({"nonce": 1}, "is not of this log-in"),
        ({"exp": int(time.time()) - 100}, "has expired"),
        ({"iat": int(time.time()) + 4000}, "is of the future"),
        ({"exp": "soon"}, "has no times"),
        ({"sub": ""}, "does not say for whom it is"),
    ],
)
async def test_what_is_not_for_us_is_refused(template: Path, tmp_path: Path, claims: dict[str, Any], why: str) -> None:
    async with doors(template, tmp_path) as d:
        await _ann(d)
        d.provider.claims = claims
        status, text = await d.enter()
        assert status == 401 and why in text, text
        assert (await d.cloud.ask("GET", "/tokens")).json == []


async def test_clocks_may_differ_and_keys_change(template: Path, tmp_path: Path) -> None:
    async with doors(template, tmp_path) as d:
        await _ann(d)
        d.provider.claims = {"exp": int(time.time()) - 5, "iat": int(time.time()) + 5}
        assert (await d.enter())[0] == 200
        d.provider.claims = {}
        assert (await d.enter())[0] == 200
        assert d.provider.asked.count("/keys") == 1  # they are kept
        d.provider.rotate()
        assert (await d.enter())[0] == 200
        assert d.provider.asked.count("/keys") == 2
        d.provider.forger = IdentityProvider().key
        status, text = await d.enter()
        assert status == 401 and "cannot be verified" in text


async def test_who_is_nobodys_user_stays_outside(template: Path, tmp_path: Path) -> None:
    async with doors(template, tmp_path, user_claim="email") as d:
        await _ann(d, "ann@example.org")
        for claims, why in (
            ({}, "does not tell the claim"),
            ({"email": "ann@example.org"}, "has not verified the address ann@example.org"),
            ({"email": "bob@example.org", "email_verified": True}, "nobody here is known at the identity provider"),
        ):
            d.provider.claims = claims
            status, text = await d.enter()
            assert status == 403 and why in text, text
        d.provider.claims = {"email": "ann@example.org", "email_verified": True}
        assert (await d.enter())[0] == 200
        assert (await d.cloud.ask("DELETE", "/users/ann")).status == 200
        assert (await d.get("/"))[0] == 303  # their sessions have ended
        assert (await d.enter())[0] == 403


async def test_claims_give_roles_and_take_them(
    template: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    roles = {"ops": "blue/operator", "lead": "blue/owner", "look": "red/viewer", "gone": "green/owner"}
    async with doors(template, tmp_path, roles_claim="groups", roles=roles) as d:

        async def members(organisation: str) -> dict[str, str]:
            found = (await d.cloud.ask("GET", f"/organisations/{organisation}")).json
            return {m["user"]: m["role"] for m in found["members"]}

        d.provider.claims = {"groups": ["others"], "preferred_username": "Ann Lee"}
        assert (await d.enter())[0] == 403  # nothing is given, so nobody is made
        d.provider.claims["groups"] = ["ops", "lead", "look", "gone", 7]
        assert (await d.enter())[0] == 200
        assert await members("blue") == {"Ann-Lee": "owner"} and await members("red") == {"Ann-Lee": "viewer"}
        d.provider.claims["groups"] = "ops"
        assert (await d.enter())[0] == 200
        assert await members("blue") == {"Ann-Lee": "operator"} and await members("red") == {}
        assert "Ann-Lee was the only owner of the organisation blue" in caplog.text
        d.provider.claims |= {"sub": "ann-2"}  # another person, of the same name
        assert (await d.enter())[0] == 200
        assert len(await members("blue")) == 2


async def test_claims_that_an_id_token_lacks_are_asked_for(template: Path, tmp_path: Path) -> None:
    roles = {"ops": "blue/operator"}
    async with doors(template, tmp_path, user_claim="email", roles_claim="groups", roles=roles) as d:
        d.provider.elsewhere = {"email": "ann@example.org", "email_verified": True, "groups": ["ops"]}
        status, text = await d.enter()
        assert status == 200 and "logged in as ann" in text, text
        d.provider.elsewhere["sub"] = "bob-1"
        status, text = await d.enter()
        assert status == 401 and "userinfo tells of another person" in text
        d.provider.claims = d.provider.elsewhere | {"sub": "ann-1"}
        before = d.provider.asked.count("/userinfo")
        assert (await d.enter())[0] == 200
        assert d.provider.asked.count("/userinfo") == before == 2  # it is asked for what is not known
        d.provider.claims, d.provider.elsewhere = {}, {}
        status, text = await d.enter()
        assert status == 403 and "does not tell the claim" in text


async def test_a_code_logs_in_who_has_it_entered(template: Path, tmp_path: Path) -> None:
    async with doors(template, tmp_path) as d:
        await _ann(d)
        begun = (await d.cloud.ask("POST", "/login/device")).json
        early = await d.cloud.ask("POST", "/login/token", {"handle": begun["handle"]})
        assert early.status == 200 and early.json["secret"] == "" and 0 < early.json["wait"] <= 1
        assert "/token" not in d.provider.asked  # it is not asked more often than it wants to be
        assert (await d.cloud.ask("POST", "/login/token", {"handle": "x"})).status == 404


async def test_hyperctl_logs_in_and_out(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with doors(template, tmp_path) as d:
        kept = await _ann_with_hyperctl(d, tmp_path, monkeypatch)
        status, _, err = await call("logout", "--oidc")
        assert status == 1 and b"not logged in" in err
        d.provider.refused = "access_denied"
        status, _, err = await call("login", "--oidc")
        assert status == 1 and b"says: access_denied" in err
        d.provider.refused = ""
        d.provider.entered.add("ABCD-EFGH")
        status, out, err = await call("login", "--oidc")
        assert status == 0 and f"{d.provider.issuer}/enter and enter ABCD-EFGH".encode() in out, err
        assert b"Logged in as ann until" in out and kept.stat().st_mode & 0o777 == 0o600
        monkeypatch.setenv("HYPER_TOKEN_FILE", str(kept))
        status, out, _ = await call("project", "ls", "-q")
        assert (status, out.split()) == (0, [b"db", b"web"])
        assert (await call("logout", "--oidc"))[:2] == (0, b"Logged out\n")
        assert not kept.exists() and (await d.cloud.ask("GET", "/tokens")).json == []


async def test_hyperctl_logs_in_past_a_provider_that_is_away_for_once(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with doors(template, tmp_path) as d:
        await _ann_with_hyperctl(d, tmp_path, monkeypatch)
        d.provider.entered.add("ABCD-EFGH")
        d.provider.silent = 1
        status, out, err = await call("login", "--oidc")
        assert status == 0 and b"Logged in as ann" in out, err
        assert d.provider.asked.count("/token") == 2


async def test_hyperctl_logs_out_of_a_log_in_that_has_ended(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with doors(template, tmp_path) as d:
        kept = await _ann_with_hyperctl(d, tmp_path, monkeypatch)
        d.provider.entered.add("ABCD-EFGH")
        assert (await call("login", "--oidc"))[0] == 0
        [login] = (await d.cloud.ask("GET", "/tokens")).json
        assert (await d.cloud.ask("DELETE", f"/tokens/{login['id']}")).status == 200
        assert (await call("logout", "--oidc"))[:2] == (0, b"Logged out; the log-in had ended before\n")
        assert not kept.exists()
        assert (await call("login", "--oidc"))[0] == 0
        monkeypatch.setenv("HYPER_TOKEN", d.cloud.s.token("read"))  # another one, which is not to be ended
        assert (await call("logout", "--oidc"))[:2] == (0, b"Logged out\n")
        assert not kept.exists()
        assert [t["scopes"] for t in (await d.cloud.ask("GET", "/tokens")).json] == [["read"]]


async def test_who_is_known_by_another_log_in_is_logged_out(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with doors(template, tmp_path) as d:
        await _ann(d)
        await d.cloud.made("/users", name="bob", login="bob-1")
        assert (await d.enter())[0] == 200
        monkeypatch.setenv("HYPER_HOST", str(d.cloud.s.path))
        status, _, err = await call("user", "update", "--login", "bob-1", "ann")
        assert status == 1 and b"the log-in 'bob-1' is the user bob's" in err
        assert (await call("user", "update", "--login", "ann-1", "--email", "ann@example.org", "ann"))[0] == 0
        assert (await d.get("/"))[0] == 200  # it is the one that they had
        assert (await call("user", "update", "ann", "--login", "ann-2"))[:2] == (0, b"ann\n")
        assert (await d.get("/"))[0] == 303 and (await d.cloud.ask("GET", "/tokens")).json == []
        told = (await d.cloud.ask("GET", "/users/ann")).json
        assert (told["login"], told["email"]) == ("ann-2", "ann@example.org")
        assert (await d.enter())[0] == 403
        d.provider.claims = {"sub": "ann-2"}
        assert (await d.enter())[0] == 200
        for args, why in ((("ann",), b"nothing is to change"), (("--email", "x", "cat"), b"no such user: cat")):
            status, _, err = await call("user", "update", *args)
            assert status == 1 and why in err


async def test_the_token_of_a_log_in_is_the_user(template: Path, tmp_path: Path) -> None:
    async with doors(template, tmp_path) as d:
        await _ann(d)
        made = d.cloud.s.stage.engine.tenancy.logins.enter(
            {"sub": "ann-1"},
            d.cloud.s.app[IDENTITY].provider._settings,  # type: ignore[union-attr]
        )
        assert (await d.cloud.ask("GET", "/containers", token=made.secret, project="db")).json == []
        assert (await d.cloud.ask("GET", "/containers", token=made.secret, project="red/web")).status == 404
        assert (await d.cloud.ask("GET", "/containers", token=made.secret)).status == 400  # it has two projects
        volume = await d.cloud.ask("POST", "/volumes", {"name": "v"}, token=made.secret, project="db")
        assert (volume.status, volume.json["owner"]) == (201, "user:ann"), volume.json
        assert (await d.cloud.ask("DELETE", "/volumes/v", token=made.secret, project="db")).status == 204
        assert (await d.cloud.ask("POST", "/tokens", {"name": "x", "scopes": ["read"]}, token=made.secret,
                                  project="db")).status == 403  # fmt: skip
        assert (await d.cloud.ask("DELETE", "/organisations/blue/members?user=ann")).status == 200
        assert (await d.cloud.ask("GET", "/containers", token=made.secret, project="db")).status == 404
        assert (await d.cloud.ask("DELETE", "/login", token=made.secret)).status == 204
        assert (await d.cloud.ask("GET", "/projects", token=made.secret)).status == 401
        plain = d.cloud.s.token("read")
        refused = await d.cloud.ask("DELETE", "/login", token=plain)
        assert refused.status == 400 and refused.json["message"] == "this is no log-in"


async def test_a_provider_that_is_not_there_is_a_sentence(template: Path, tmp_path: Path) -> None:
    async with doors(template, tmp_path) as d:
        d.provider.described = {"issuer": "https://other.example"}
        status, text, _ = await d.get("/login/elsewhere")
        assert status == 503 and "the identity provider calls itself https://other.example" in text
        d.provider.described = {"token_endpoint": "http://other.example/token"}
        status, text, _ = await d.get("/login/elsewhere")
        assert status == 400 and "is not by https" in text
        d.provider.described = {"device_authorization_endpoint": ""}
        got = await d.cloud.ask("POST", "/login/device")
        assert got.status == 501 and got.json["message"] == "the identity provider has no log-in by a code"


async def test_without_a_provider_there_is_none(template: Path) -> None:
    async with cloud(template) as c:
        for path, body in (("/login/device", None), ("/login/token", {"handle": "x"})):
            got = await c.ask("POST", path, body)
            assert got.status == 501 and got.json["message"] == "this hyperd has no identity provider"
