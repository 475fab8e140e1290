# SPDX-License-Identifier: Apache-2.0
"""The audit log: every request, whatever came of it; rotated; loud on a full disk, and never in the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from hypercontainer.engine import audit as module
from hypercontainer.engine.audit import AuditLog, AuditSettings
from hypercontainer.engine.events import Events
from hypercontainer.errors import PermissionDenied
from hypercontainer.model.audit import AuditEntry
from hypercontainer.serving.auditing import shown
from tests.small_disk import small_disk

from .served import served
from .stage import IMAGE


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def entry(number: int, size: int = 0) -> AuditEntry:
    return AuditEntry(time="t", request=str(number), phase="end", method="GET", path="/" + "x" * size)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def test_every_request_is_in_it(template: Path, tmp_path: Path) -> None:
    path = tmp_path / "of/its/own/audit.log"
    async with served(template, audit=AuditSettings(path)) as s:
        token = s.token("read")
        made = await s.ask("POST", "/v1/containers?start=0", {"image": IMAGE, "env": ["PASSWORD=canary"]})
        refused = await s.ask("POST", "/v1/images/prune?all=1", token=token, tcp=True)
        unknown = await s.ask("GET", "/v1/pods", token="canary", tcp=True)
        none = await s.ask("GET", "/v1/none%0a{}")
        broken = await s.ask("POST", "/v1/containers", b"{")
        answers = [made, refused, unknown, none, broken]
        found = lines(path)
        assert [f["request"] for f in found] == [a.headers["hyper-request-id"] for a in answers]
        told = [
            (f.get("principal"), f.get("peer"), f["path"], f.get("query"), f["status"], f.get("code")) for f in found
        ]
        me = found[0]["principal"]
        assert me.startswith("uid:") and path.stat().st_mode & 0o777 == 0o600
        assert told == [
            (me, None, "/v1/containers", "start=0", 201, None),
            (f"token:{token.split('_')[1]}", "127.0.0.1", "/v1/images/prune", "all=1", 403, "permission_denied"),
            (None, "127.0.0.1", "/v1/pods", None, 401, "unauthorized"),
            (me, None, "/v1/none\n{}", None, 404, "not_found"),
            (me, None, "/v1/containers", None, 400, "invalid_argument"),
        ]
        assert "canary" not in path.read_text()
        assert (await s.ask("GET", "/v1/info")).json["audit"] == str(path)


async def test_a_stream_is_in_it_from_its_begin_on(template: Path, tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    async with served(template, audit=AuditSettings(path)) as s:
        reader, writer = await s.open()
        writer.write(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert [(f["phase"], f["path"], f["status"]) for f in lines(path)] == [("begin", "/v1/events", 200)]
        writer.close()
        await until(lambda: len(lines(path)) == 2)
        begin, end = lines(path)
        assert (begin["request"], "end") == (end["request"], end["phase"])


def test_what_is_rotated_while_it_is_read_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once or twice: a file that has been read has the name of an older one then."""
    path = tmp_path / "audit.log"
    log, latest = AuditLog(AuditSettings(path, 100, 9), Events()), module._latest
    for number in range(4):
        log.write(entry(number))
    number, rotations = 4, [1, 0, 2, 0, 0, 0, 0, 0, 0]

    def read(*of: Any) -> list[AuditEntry]:
        nonlocal number
        found = latest(*of)
        for _ in range(rotations.pop(0)):
            log.write(entry(number))
            number += 1
        return found

    monkeypatch.setattr(module, "_latest", read)
    assert [e.request for e in log.read(UNSET, 100)] == ["3", "2", "1", "0"]
    log.close()


def test_it_is_rotated_and_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    for _ in range(2):  # daemons
        log = AuditLog(AuditSettings(path, size=1000, files=3), Events())
        for number in range(30):
            log.write(entry(number, 100))
        log.close()
    files = [path, tmp_path / "audit.log.1", tmp_path / "audit.log.2"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f.name for f in files)
    assert all(0 < f.stat().st_size <= 1000 for f in files)
    numbers = [int(x["request"]) for f in reversed(files) for x in lines(f)]
    assert numbers == list(range(30))[-len(numbers) :] and len(numbers) > 10


def test_one_that_cannot_be_opened_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    for path in (tmp_path, tmp_path / "link"):
        with pytest.raises(PermissionDenied, match="cannot be opened"):
            AuditLog(AuditSettings(path), Events())


async def test_a_full_disk_is_told_loudly_and_hangs_nobody(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WAITING", 20)
    with small_disk(tmp_path / "disk", 1) as disk:
        path, filler = disk / "audit.log", disk / "filler"
        async with served(template, audit=AuditSettings(path)) as s:
            engine = s.stage.engine
            assert (await s.ask("GET", "/v1/ping")).status == 200
            with open(filler, "wb", buffering=0) as f, pytest.raises(OSError, match="No space"):
                while True:
                    f.write(bytes(4096))
            number = 0
            while not engine.audit or not engine.audit.trouble:  # what is left of the last page
                number += 1
                assert (await s.ask("GET", f"/v1/ping?{number}")).status == 200
            for further in range(number, number + 30):
                assert (await s.ask("GET", f"/v1/ping?{further}")).status == 200
            assert "No space left" in (await s.ask("GET", "/v1/info")).json["audit"]
            checks = {c["name"]: c for c in (await s.ask("GET", "/v1/doctor")).json}
            assert checks["audit log"]["status"] == "fail"
            assert path.read_bytes().endswith(b"}\n")  # no half of a line
            filler.unlink()
            await until(lambda: bool(engine.audit) and not engine.audit.trouble)
            found = lines(path)
            assert found[-1]["lost"] > 0 and any(f.get("path") == "/v1/doctor" for f in found)
            told = [(e.action, e.principal) for e in engine.events.past() if e.type == "daemon"]
            assert told == [("audit_failed", ""), ("audit_restored", "")]  # whoever asked meanwhile
            checks = {c["name"]: c for c in (await s.ask("GET", "/v1/doctor")).json}
            assert checks["audit log"]["status"] == "ok"


@pytest.mark.parametrize(
    ("query", "written"),
    [
        ("", ""),
        ("start=1&name=a%3Db", "start=1&name=a%3Db"),
        ("t=x&buildargs=%7B%22TOKEN%22%3A%22hunter2%22%7D&q=1", "t=x&buildargs=...&q=1"),
        ("%62uildargs=hunter2", "%62uildargs=..."),
        ("remote=https://me:hunter2@example.org/x.git&changes=ENV+A=hunter2", "remote=...&changes=..."),
        ("all&BuildArgs=hunter2", "all&BuildArgs=..."),
    ],
)
def test_a_query_is_written_without_what_may_be_a_secret(query: str, written: str) -> None:
    assert shown(query) == written


async def test_arguments_of_a_build_are_not_in_it(template: Path, tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    async with served(template, audit=AuditSettings(path)) as s:
        for docker in (False, True):
            target = "/v1/nothing" if not docker else "/nothing"
            await s.ask("POST", f"{target}?buildargs=%7B%22TOKEN%22:%22hunter2%22%7D", docker=docker)
    assert "buildargs=..." in path.read_text() and "hunter2" not in path.read_text()
