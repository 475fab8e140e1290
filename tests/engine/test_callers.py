# SPDX-License-Identifier: Apache-2.0
"""Who may do what over the API: scopes, tokens, and what takes the host."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.api.app import ROUTES
from hypercontainer.engine.host_access import check_registry
from hypercontainer.engine.principal import asked_by
from hypercontainer.errors import PermissionDenied, Unauthorized
from hypercontainer.model.principal import SCOPES, Principal, widened
from hypercontainer.model.specs import LogOptions
from hypercontainer.model.tokens import TokenRequest
from hypercontainer.sys import clock

from .served import served
from .stage import IMAGE

HOSTILE: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/containers", {"image": IMAGE, "mounts": [{"type": "bind", "source": "/etc", "target": "/x"}]}),
    ("POST", "/containers", {"image": IMAGE, "log": {"path": "/var/log/mine"}}),
    ("POST", "/containers", {"image": IMAGE, "log": {"driver": "syslog"}}),
    ("POST", "/containers", {"image": IMAGE, "log": {"driver": "journald"}}),
    ("POST", "/containers", {"image": IMAGE, "network": "user:host-loopback"}),
    ("POST", "/containers", {"image": IMAGE, "network": "cni:lan"}),
    ("POST", "/containers", {"image": IMAGE, "networks": [{"name": "cni:lan"}]}),
    ("POST", "/networks", {"name": "mine", "subnets": ["192.168.0.0/16"]}),
    ("POST", "/images/pull?name=docker-archive:/etc/shadow", {}),
    ("POST", "/images/pull?name=oci:/root", {}),
    ("POST", "/images/pull?name=oci-archive:/root/x.tar", {}),
    ("POST", "/images/pull?name=docker-daemon:x:latest", {}),
    ("POST", "/images/pull?name=127.0.0.1:1/x", {}),
    ("POST", "/images/pull?name=docker://localhost:1/x", {}),
    ("POST", "/images/pull?name=169.254.169.254/x", {}),
    ("POST", "/images/pull?name=%5B::1%5D:1/x", {}),
    ("GET", "/images/tags?name=127.1:1/x", {}),
]
POD: dict[str, Any] = {"id": "p", "containers": [{"image": IMAGE, "name": "c"}]}
HOSTILE_PODS: list[dict[str, Any]] = [
    {"interfaces": [{"bridge": "br0", "ip": "10.0.0.2/24"}]},
    {"volumes": [{"name": "v", "source": "/etc", "format": "vfs"}]},
    {"volumes": [{"name": "v", "source": "/dev/sda", "format": "raw"}]},
    {"volumes": [{"name": "v", "source": "/etc"}]},
    {"volumes": [{"name": "v", "source": "file:///etc"}]},
    {"volumes": [{"name": "v", "source": "a/b", "format": "rbd", "option": {"monitors": ["10.0.0.1:6789"]}}]},
    {"files": [{"name": "f", "uri": "file:///etc/shadow"}]},
    {"files": [{"name": "f", "uri": "http://169.254.169.254/latest"}]},
]


async def test_every_route_takes_the_scope_that_it_says(template: Path) -> None:
    """With every other scope it is refused, before anything of the request is read."""
    async with served(template) as s:
        token = {scope: s.token(scope) for scope in SCOPES}
        for route in [route for route in ROUTES if not route.everybody]:
            path = f"/v1{route.path.replace('{id}', 'none')}"
            for scope in SCOPES:
                if widened([scope]).isdisjoint((route.needs, *route.also)):
                    got = await s.ask(route.method, path, b"{broken", token=token[scope])
                    assert (got.status, got.json["code"]) == (403, "permission_denied"), (route.path, scope)
        manages = {r.path for r in ROUTES if r.needs == "manage"}
        assert manages >= {"/tokens", "/tokens/{id}", "/projects", "/organisations/{id}/members"}
        daemon = {r.path for r in ROUTES if r.needs == "admin"} - {"/set-aside/{id}"}
        about = ("/users", "/organisations", "/projects", "/usage", "/billing", "/backup", "/cluster/nodes")
        assert all(path.startswith(about) for path in daemon)
        assert all(r.method == "GET" or r.path.endswith("/wait") for r in ROUTES if r.needs == "read")
        for scope, path in (("read", "/v1/containers"), ("operate", "/v1/pods"), ("admin", "/v1/tokens")):
            assert (await s.ask("GET", path, token=token[scope])).status == 200  # type: ignore[index]
        assert (await s.ask("GET", "/v1/doctor?probe=1", token=token["operate"])).status == 403
        assert (await s.ask("GET", "/v1/openapi.json", token=token["host"])).status == 403


@pytest.mark.parametrize(("method", "path", "body"), HOSTILE, ids=lambda x: str(x)[:60])
async def test_what_takes_the_host_is_refused_without_its_scope(
    template: Path, method: str, path: str, body: dict[str, Any]
) -> None:
    async with served(template) as s:
        got = await s.ask(method, f"/v1{path}", body, token=s.token("admin"))
        assert got.status == 403 and "takes the scope `host`" in got.json["message"], got.body
        assert s.stage.engine.registry.containers() == []
        may = await s.ask(method, f"/v1{path}", body, token=s.token("admin", "host"))
        assert may.status != 403, may.body


REGISTRIES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/images/create?fromImage=127.0.0.1:1/x&tag=y", {}),
    ("POST", "/images/create?fromImage=localhost:1/x", {}),
    ("POST", "/images/create?fromImage=0.0.0.0:1/x&tag=y", {}),
    ("GET", "/distribution/169.254.169.254/x/json", {}),
    ("POST", "/auth", {"serveraddress": "https://127.0.0.1:1/", "username": "a", "password": "b"}),
]


@pytest.mark.parametrize(("method", "path", "body"), REGISTRIES, ids=lambda x: str(x)[:60])
async def test_registries_of_the_host_are_asked_for_nobody_without_its_scope(
    template: Path, method: str, path: str, body: dict[str, Any]
) -> None:
    """By Docker's API. Nor would the answer's sentence tell what listens there."""
    async with served(template) as s:
        got = await s.ask(method, path, body, token=s.token("operate"), docker=True)
        assert got.status in (200, 403) and b"takes the scope `host`" in got.body, got.body
        may = await s.ask(method, path, body, token=s.token("operate", "host"), docker=True)
        assert b"takes the scope" not in may.body


@pytest.mark.parametrize("path", ["/images/get?names=box", "/images/box/get", "/containers/a/export",
                                  "/containers/a/archive?path=/etc"])  # fmt: skip
async def test_who_may_only_look_gets_no_files_by_dockers_api(template: Path, path: str) -> None:
    async with served(template) as s:
        got = await s.ask("GET", path, token=s.token("read"), docker=True)
        assert got.status == 403, got.body[:200]
        assert (await s.ask("GET", path, token=s.token("operate"), docker=True)).status != 403


async def test_other_registries_are_asked_for_everybody(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a name that cannot be looked up, or has an address of this host among its own."""
    addresses = {"registry.example": ["192.0.2.1"], "both.example": ["192.0.2.1", "::1"]}

    async def look_up(_: Any, name: str, *__: Any, **___: Any) -> list[tuple[Any, ...]]:
        if name not in addresses:
            raise OSError("not known")
        return [(0, 0, 0, "", (address, 0)) for address in addresses[name]]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", look_up)
    with asked_by(Principal("token:x", scopes=frozenset({"operate"}))):
        await check_registry("registry.example:5000")
        await check_registry("unknown.example")
        with pytest.raises(PermissionDenied, match="both.example"):
            await check_registry("both.example")


@pytest.mark.parametrize("more", HOSTILE_PODS, ids=str)
async def test_podfiles_that_take_the_host_are_refused_without_its_scope(template: Path, more: dict[str, Any]) -> None:
    async with served(template) as s:
        got = await s.ask("POST", "/v1/pods", POD | more, token=s.token("operate"))
        assert got.status == 403 and "takes the scope `host`" in got.json["message"], got.body
        assert s.stage.engine.registry.pods() == []


async def test_what_takes_no_host_needs_no_such_scope(template: Path) -> None:
    async with served(template) as s:
        token = s.token("operate")
        made = await s.ask("POST", "/v1/containers", {"image": IMAGE, "name": "a"}, token=token, tcp=True)
        assert made.status == 201 and made.json["owner"].startswith("token:"), made.body
        assert (await s.ask("POST", "/v1/containers/a/start", token=token)).json == {"changed": True}
        more = {"volumes": [{"name": "v", "format": "tmpfs"}], "containers": [{"image": IMAGE, "name": "d"}]}
        assert (await s.ask("POST", "/v1/pods", POD | more, token=token)).status == 201


async def test_nobody_is_known_by_tcp_without_a_token(template: Path) -> None:
    async with served(template) as s:
        for headers in (
            {},
            {"Authorization": "Basic YTpi"},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer x"},
        ):
            for target in ("/v1/ping", "/v1/version", "/v1/openapi.json", "/v1/none", "/"):
                got = await s.ask("GET", target, tcp=True, headers=headers)
                assert (got.status, got.headers["www-authenticate"]) == (401, "Bearer"), target
        # Nor is who brings a bad one to the unix socket taken for its user.
        assert (await s.ask("GET", "/v1/version", token="hyper_00_00")).status == 401
        assert (await s.ask("GET", "/v1/version")).status == 200


async def test_guesses_of_a_token_are_all_refused_in_the_same_words(template: Path) -> None:
    async with served(template) as s:
        good = s.token("read")
        said = set()
        for bad in (
            good[:-1],
            f"{good}x",
            good.upper(),
            f"x{good}",
            good.replace("hyper_", "hyper__"),
            "hyper__",
            "é" * 9,
        ):
            with pytest.raises(Unauthorized) as error:
                s.stage.engine.tokens.authenticate(bad)
            said.add(str(error.value))
        assert len(said) == 1 and s.stage.engine.tokens.authenticate(good).scopes == {"read"}


async def test_a_token_is_made_listed_and_revoked(template: Path) -> None:
    async with served(template) as s:
        made = await s.ask("POST", "/v1/tokens", {"name": "ci", "scopes": ["operate"], "life": 60})
        assert made.status == 201
        secret, told = made.json["secret"], made.json["token"]
        listed = await s.ask("GET", "/v1/tokens")
        assert listed.json == [told] and secret.split("_", 2)[2] not in listed.body.decode()
        assert (await s.ask("POST", "/v1/tokens", {"name": "ci", "scopes": ["read"]})).status == 409
        assert (await s.ask("POST", "/v1/tokens", {"name": "none", "scopes": []})).status == 400
        assert (await s.ask("GET", "/v1/pods", token=secret, tcp=True)).status == 200
        assert (await s.ask("DELETE", "/v1/tokens/ci")).status == 200
        assert (await s.ask("GET", "/v1/pods", token=secret, tcp=True)).status == 401
        assert (await s.ask("DELETE", "/v1/tokens/ci")).status == 404
        actions = [(e.action, e.attributes["name"]) for e in s.stage.engine.events.past() if e.type == "token"]
        assert actions == [("create", "ci"), ("revoke", "ci")]


async def test_when_a_token_was_used_is_told_and_written_once_a_minute(template: Path) -> None:
    async with served(template) as s:
        tokens, engine = s.stage.engine.tokens, s.stage.engine
        secret = s.token("read")

        def used() -> tuple[str, str]:
            """As it is told, and as the database has it."""
            (kept,) = engine.registry.journal.database.tokens()
            return tokens.all()[0].last_used_at, kept.last_used_at

        with pytest.raises(Unauthorized):
            tokens.authenticate(secret[:-1])
        assert used() == ("", "")
        seen = []
        for second in (0, 1, 59, 61):
            with clock.told_by(lambda: (1_000_000_000 + second) * 10**9):  # noqa: B023
                assert (await s.ask("GET", "/v1/pods", token=secret)).status == 200
                seen.append(tuple(moment[17:19] for moment in used()))
        assert seen == [("40", "40"), ("41", "40"), ("39", "40"), ("41", "41")]


async def test_no_token_gives_more_than_its_maker_has(template: Path) -> None:
    async with served(template) as s:
        admin = s.token("admin")
        got = await s.ask("POST", "/v1/tokens", {"name": "x", "scopes": ["admin", "host"]}, token=admin)
        assert got.status == 403 and "may not give the scope host" in got.json["message"]
        assert (await s.ask("POST", "/v1/tokens", {"name": "x", "scopes": ["admin"]}, token=admin)).status == 201


async def test_a_token_that_is_revoked_or_ends_closes_what_is_open_with_it(template: Path) -> None:
    async with served(template) as s:
        for token, end in (
            (s.token("read"), "revoke"), (s.token("read", "manage"), "itself"), (s.token("read", life=1.0), "time"),
        ):  # fmt: skip
            async with s.listening(token):
                if end != "time":
                    by = token if end == "itself" else ""
                    assert (await s.ask("DELETE", f"/v1/tokens/{token.split('_')[1]}", token=by)).status == 200


def test_an_expired_token_is_known_no_more(template: Path) -> None:
    import asyncio

    async def scenario() -> None:
        async with served(template) as s:
            token = s.token("read", life=60)
            now = clock.now_ns()
            with clock.told_by(lambda: now + 59 * 10**9):
                s.stage.engine.tokens.authenticate(token)
            with clock.told_by(lambda: now + 61 * 10**9), pytest.raises(Unauthorized):
                s.stage.engine.tokens.authenticate(token)
            for_ever = s.token("read", life=0)
            with clock.told_by(lambda: now + 10**9 * 86400 * 3650):
                s.stage.engine.tokens.authenticate(for_ever)
                assert [t.expired for t in s.stage.engine.tokens.all()] == [False, True]

    asyncio.run(scenario())


async def test_tokens_outlive_the_daemon_and_their_secrets_are_nowhere(template: Path) -> None:
    async with served(template) as s:
        token = s.token("read")
        engine = s.stage.engine
        await engine.close(keep_running=True)
        found = b"".join(p.read_bytes() for p in s.stage.paths.root.rglob("*") if p.is_file() and not p.is_symlink())
        assert token.encode() not in found and token.split("_", 2)[2].encode() not in found
        with sqlite3.connect(s.stage.paths.database) as db:
            assert db.execute("SELECT count(*) FROM tokens").fetchone() == (1,)
        again = s.stage.prepare().engine
        await again.open()
        assert again.tokens.authenticate(token).scopes == {"read"}
        again.registry.journal.close()


def test_scopes_bring_others_and_none_brings_the_host() -> None:
    assert widened(["admin"]) == {"admin", "operate", "read", "audit", "manage"}
    assert widened(["operate", "host"]) == {"operate", "read", "host"}
    assert widened([]) == frozenset()
    assert Principal("uid:0").scopes == set(SCOPES)


async def test_a_user_of_this_host_has_every_scope(template: Path) -> None:
    async with served(template) as s:
        body = {"image": IMAGE, "mounts": [{"type": "bind", "source": "/etc", "target": "/x"}]}
        assert (await s.ask("POST", "/v1/containers", body)).status != 403
        with asked_by(Principal("token:x", scopes=frozenset({"read"}))), pytest.raises(PermissionDenied):
            s.stage.engine.tokens.create(TokenRequest(name="x", scopes=["operate"]))


async def test_the_daemons_own_log_driver_is_not_the_callers_doing(template: Path) -> None:
    async with served(template, log=LogOptions(driver="syslog", options={"syslog-address": "udp://127.0.0.1:1"})) as s:
        token = s.token("operate")
        made = await s.ask("POST", "/v1/containers", {"image": IMAGE}, token=token)
        assert (made.status, made.json["spec"]["log"]["driver"]) == (201, "syslog"), made.body
        named = await s.ask("POST", "/v1/containers", {"image": IMAGE, "log": {"driver": "syslog"}}, token=token)
        assert named.status == 403
