# SPDX-License-Identifier: Apache-2.0
"""The API by TCP: TLS 1.3, certificates of clients, tokens; and hyperctl's side of it."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hypercontainer.client.api import Client
from hypercontainer.client.transport import Connection
from hypercontainer.errors import HyperError, InvalidArgument, PermissionDenied, Unauthorized, Unavailable
from hypercontainer.hyperctl.quick import split
from hypercontainer.hyperd.config import Config, load
from hypercontainer.hyperd.listening import address_of, listening
from hypercontainer.hyperd.server_tls import server_context
from hypercontainer.model.host import Version
from hypercontainer.model.principal import Scope
from tests.certificates import Authority, Pair

from .served import Served, served
from .stage import IMAGE

FRAME = struct.Struct(">B3xI")


class Site:
    """A server's certificates, and clients'."""

    def __init__(self, directory: Path) -> None:
        self.ca = Authority(directory / "ca")
        self.server = self.ca.sign("server", server=True)
        self.config = Config(tlscert=str(self.server.cert), tlskey=str(self.server.key), tlscacert=str(self.ca.cert))

    @asynccontextmanager
    async def serve(
        self, template: Path, pair: Pair | None = None, certificates: dict[str, list[Scope]] | None = None
    ) -> AsyncIterator[Served]:
        async with served(
            template, tls=server_context(self.config), client=self.ca.client(pair), certificates=certificates
        ) as s:
            yield s


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def test_a_clients_certificate_says_who_asks_and_what_they_may(template: Path, site: Site) -> None:
    scopes: dict[str, list[Scope]] = {"*": ["read"], "ci": ["operate"], "out": []}
    for name, status in (("ci", 201), ("anybody", 403), ("out", 403)):
        async with site.serve(template, site.ca.sign(name), scopes) as s:
            made = await s.ask("POST", "/v1/containers", {"image": IMAGE, "name": "a"}, tcp=True)
            assert made.status == status, made.body
            if status == 201:
                assert made.json["owner"] == "cert:ci"
            seen = await s.ask("GET", "/v1/containers?all=1", tcp=True)
            assert seen.status == (403 if name == "out" else 200)


async def test_without_a_certificate_a_token_is_needed_and_is_enough(template: Path, site: Site) -> None:
    async with site.serve(template) as s:
        assert (await s.ask("GET", "/v1/version", tcp=True)).status == 401
        assert (await s.ask("GET", "/v1/version", tcp=True, token=s.token("read"))).status == 200


async def test_certificates_of_others_and_of_the_past_are_refused(template: Path, site: Site, tmp_path: Path) -> None:
    for pair in (Authority(tmp_path / "other", "other").sign("ci"), site.ca.sign("late", days=-1)):
        async with site.serve(template, pair, {"*": ["admin"]}) as s:
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await s.ask("GET", "/v1/version", tcp=True)
            assert (await s.ask("GET", "/v1/version")).status == 200


async def test_a_servers_certificate_is_no_clients(template: Path, site: Site) -> None:
    async with site.serve(template, site.server, {"*": ["admin"]}) as s:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await s.ask("GET", "/v1/version", tcp=True)


_REFUSED = (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)


async def test_a_revoked_certificate_is_refused_from_the_next_connection_on(template: Path, site: Site) -> None:
    """The list that hyperd was started with, and one that takes its place; an old one lets nobody in."""
    pair, other = site.ca.sign("ci"), site.ca.sign("other")
    site.config = replace(site.config, tlscrl=str(site.ca.revoke(other)))
    async with site.serve(template, pair, {"*": ["read"]}) as s:
        assert (await s.ask("GET", "/v1/version", tcp=True)).status == 200
        for revoked, days, refused in (((pair,), 1, True), ((other,), 1, False), ((), -1, True)):
            site.ca.revoke(*revoked, days=days)
            if refused:
                with pytest.raises(_REFUSED):
                    await s.ask("GET", "/v1/version", tcp=True)
            else:
                assert (await s.ask("GET", "/v1/version", tcp=True)).status == 200
        s.tls = site.ca.client()  # without a certificate, but with a token
        assert (await s.ask("GET", "/v1/version", tcp=True, token=s.token("read"))).status == 200


async def test_new_certificates_are_served_without_a_restart(
    template: Path, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """One that does not belong to its key, as between the two files' renewal, changes nothing."""

    async def served_with() -> bytes | None:
        _, writer = await s.open(tcp=True)
        shown: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return shown

    async with site.serve(template, site.ca.sign("ci"), {"*": ["read"]}) as s:
        first = await served_with()
        old_key = site.server.key.read_bytes()
        new = site.ca.sign("server", server=True)
        new_key = new.key.read_bytes()
        new.key.write_bytes(old_key)
        assert await served_with() == first
        assert "TLS goes on with the certificates that it had" in caplog.text
        new.key.write_bytes(new_key)
        second = await served_with()
        assert second == ssl.PEM_cert_to_DER_cert(new.cert.read_text()) != first
        assert (await s.ask("GET", "/v1/version", tcp=True)).status == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_nothing_older_than_tls_1_3_is_spoken(template: Path, site: Site) -> None:
    async with site.serve(template) as s:
        assert s.tls
        s.tls.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):  # an alert, which a reset may overtake
            await s.ask("GET", "/v1/version", tcp=True)
        s.tls = None  # in clear
        reader, writer = await s.open(tcp=True)
        writer.write(b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                assert b"HTTP" not in await reader.read()
        writer.close()


# -- hyperd's side ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"tlscert": ""}, InvalidArgument, "TCP is served with TLS only"),
        ({"tlskey": ""}, InvalidArgument, "TCP is served with TLS only"),
        ({"tlskey": "/nowhere"}, InvalidArgument, "they must be PEM files"),
        ({"tlscacert": "/etc/passwd"}, InvalidArgument, "they must be PEM files"),
        ({"tlscert": "/etc/passwd"}, InvalidArgument, "they must be PEM files"),
        ({"tlscrl": "/nowhere"}, InvalidArgument, "they must be PEM files"),
        ({"tlscrl": "CA"}, InvalidArgument, "ca.pem is no list of revoked certificates"),
        ({"tlscrl": "CA", "tlscacert": ""}, InvalidArgument, "a list of revoked certificates without their CA"),
    ],
)
def test_what_cannot_be_served_is_said(site: Site, change: dict[str, Any], error: type[HyperError], says: str) -> None:
    settings = {n: getattr(site.config, n) for n in ("tlscert", "tlskey", "tlscacert")} | change
    settings = {n: str(site.ca.cert) if value == "CA" else value for n, value in settings.items()}
    with pytest.raises(error, match=says):
        server_context(Config(**settings))


def test_a_key_that_others_can_read_is_refused(site: Site) -> None:
    site.server.key.chmod(0o640)
    with pytest.raises(PermissionDenied, match="others may use the key"):
        server_context(site.config)


@pytest.mark.parametrize(
    "url", ["", "tcp://", "tcp://x", "http://x:1", "tcp://x:1/y", "tcp://u@x:1", "tcp://x:y", "x:1"]
)
def test_addresses_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid address"):
        address_of(url)


def test_addresses_are_read() -> None:
    assert address_of("tcp://[::1]:2376") == ("::1", 2376)
    assert address_of("tcp://0.0.0.0:0") == ("0.0.0.0", 0)


@pytest.mark.parametrize("mode", ["666", "661", "0667", "abc", "", "66", "1660"])
def test_a_socket_is_never_open_to_all(mode: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid socket_mode"):
        load(Path(os.devnull), {"socket_mode": mode} if mode else {"socket_mode": " "})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a socket to any group")
def test_the_socket_has_its_mode_and_group(tmp_path: Path) -> None:
    config = Config(run=str(tmp_path / "run"), socket_mode="0600", group="nogroup")
    (tmp_path / "run").mkdir(mode=0o700)
    with listening(config) as found:
        status = config.socket_path.stat()
        assert (status.st_mode & 0o777, found[0].tls) == (0o600, None)
        assert status.st_gid == (tmp_path / "run").stat().st_gid != 0
    assert not config.socket_path.exists()
    with pytest.raises(InvalidArgument, match="there is no group 'none-of-this-name'"):
        with listening(Config(run=str(tmp_path / "run"), group="none-of-this-name")):
            pass


# -- hyperctl's side ----------------------------------------------------------------------


def show(monkeypatch: pytest.MonkeyPatch, **variables: object) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"HYPER_{name.upper()}", str(value))


async def test_a_client_by_token(template: Path, site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with site.serve(template) as s:
        client = Client(f"tcp://localhost:{s.port}")

        def version() -> str:
            return client.call(Version, "GET", "/version").version

        with pytest.raises(Unauthorized, match=r"is not trusted: .*--tlscacert"):
            await asyncio.to_thread(version)
        show(monkeypatch, tlscacert=site.ca.cert)
        with pytest.raises(Unauthorized, match="nobody is known by this connection"):
            await asyncio.to_thread(version)
        (tmp_path / "token").write_text(s.token("read") + "\n")
        show(monkeypatch, token_file=tmp_path / "token")
        assert await asyncio.to_thread(version)
        show(monkeypatch, token="hyper_0_0")  # goes before the file
        with pytest.raises(Unauthorized, match="the token is not known"):
            await asyncio.to_thread(version)
        for bad in ("a b", "a\nb", "é"):
            show(monkeypatch, token=bad)
            with pytest.raises(InvalidArgument, match="HYPER_TOKEN has no token"):
                await asyncio.to_thread(version)


async def test_a_client_by_certificate(template: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = site.ca.sign("me")
    directory = pair.cert.parent
    for name, path in (("ca", site.ca.cert), ("cert", pair.cert), ("key", pair.key)):
        (directory / f"{name}.pem").write_bytes(path.read_bytes())
    async with site.serve(template, certificates={"me": ["read"]}) as s:
        show(monkeypatch, cert_path=directory)
        for host in ("localhost", "127.0.0.1"):
            client = Client(f"tcp://{host}:{s.port}")
            assert (await asyncio.to_thread(lambda c=client: c.call(Version, "GET", "/version"))).version
        with pytest.raises(PermissionDenied, match="takes the scope `operate`"):
            await asyncio.to_thread(lambda: client.do("POST", "/images/prune"))


async def test_nobody_who_answers_is_said(template: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    show(monkeypatch, tlscacert=site.ca.cert)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Unavailable, match="cannot connect to hyperd at tcp://localhost"):
        Connection(f"tcp://localhost:{port}")
    with pytest.raises(InvalidArgument, match="invalid host"):
        Connection("tcp://localhost")
    show(monkeypatch, tlscacert="/nowhere.pem")
    with pytest.raises(InvalidArgument, match="TLS cannot be used with /nowhere.pem"):
        Connection(f"tcp://localhost:{port}")


async def test_an_attached_stream_goes_both_ways(template: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than all buffers hold, through the relay, by a client that waits for descriptors."""
    async with site.serve(template) as s:
        show(monkeypatch, tlscacert=site.ca.cert, token=s.token("operate"))
        client = Client(f"tcp://localhost:{s.port}")

        def attach() -> list[tuple[int, bytes]]:
            body = {"image": IMAGE, "command": ["cat"], "stdin": True}
            with client.upgrade("/containers", {"start": True}, body) as connection:
                sock, early = connection.raw()
                with sock, sock.makefile("rb") as reader:
                    assert early == b""
                    sent = b"x" * 60_000
                    for _ in range(20):
                        sock.sendall(FRAME.pack(0, len(sent)) + sent)
                    sock.sendall(FRAME.pack(0, 0))
                    frames = []
                    while head := reader.read(FRAME.size):
                        kind, length = FRAME.unpack(head)
                        frames.append((kind, reader.read(length)))
                    return frames

        frames = await asyncio.to_thread(attach)
        assert frames[-1][0] == 3 and b'"exitCode":0' in frames[-1][1], frames[-1]
        assert b"".join(data for kind, data in frames if kind == 1) == b"x" * 1_200_000


def test_the_verb_is_found_behind_the_options_of_tls() -> None:
    before = ["--tlscacert", "run", "--token-file=t", "-H", "tcp://x:1"]
    assert split([*before, "run", "box"]) == ("tcp://x:1", "run", ["box"])
