# SPDX-License-Identifier: Apache-2.0
"""A dockerd in a fake guest: as much of Docker's API as hyperd asks of the builder's, over the streams of a process."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from hypercontainer.guest.fake_process import FakeProcess
from hypercontainer.model.protobuf import encoded


def made(names: list[str], about: str, layer: bytes = b"") -> tuple[str, bytes]:
    """An image of one empty layer: its id, and an archive of it as docker save writes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w"):
        pass
    layer = layer or out.getvalue()
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": [about]},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
    }).encode()  # fmt: skip
    files = {"config.json": config, "layer.tar": layer, "manifest.json": json.dumps(
        [{"Config": "config.json", "RepoTags": names, "Layers": ["layer.tar"]}]).encode()}  # fmt: skip
    return digest(config), packed(files)


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def packed(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@dataclass
class FakeDockerd:
    """One for all guests of a host, as its files are on a volume."""

    images: dict[str, set[str]] = field(default_factory=dict)  # id -> names
    archives: dict[str, bytes] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)  # requests, as they came
    heads: list[str] = field(default_factory=list)  # of connections that were upgraded
    contexts: list[bytes] = field(default_factory=list)
    deaf: bool = False  # nobody listens
    slow: asyncio.Event | None = None  # what builds wait for
    left: asyncio.Event = field(default_factory=asyncio.Event)  # a client has gone during a build
    failing: str = ""  # why builds fail
    builds: int = 0
    relays: int = 0  # connections that there were
    silent: bool = False  # clients that speak with BuildKit are not told what it made
    other: bool = False  # another image than was made is given
    cut: bool = False  # its machine ends while it gives an image
    cache: list[dict[str, object]] = field(default_factory=list)  # its records, as /system/df tells them

    def have(self, names: list[str], about: str) -> str:
        """An image that it has."""
        id_, self.archives[id_] = made(names, about)
        for others in self.images.values():
            others.difference_update(names)
        self.images.setdefault(id_, set()).update(names)
        return id_

    async def relay(self, p: FakeProcess) -> int:
        """The program `relay`."""
        if self.deaf:
            await p.write(b"relay: nobody listens\n", 2)
            return 1
        self.relays += 1
        stream = _Stream(p)
        while head := await stream.until(b"\r\n\r\n"):
            await self._answer(p, stream, head.decode())
            if self.cut and b"/images/get" in head:
                break
        return 0

    async def _answer(self, p: FakeProcess, stream: _Stream, head: str) -> None:
        method, target, _ = head.split("\r\n")[0].split(" ")
        url = urlsplit(target)
        path, query = url.path.removeprefix("/v1.45"), parse_qs(url.query)
        self.said.append(f"{method} {path}")
        if path in ("/build", "/grpc", "/session"):
            await self._build(p, stream, head, query)
            return
        body = await stream.body(head)
        if path == "/_ping":
            await _send(p, b"OK")
        elif path == "/images/json":
            found = [{"Id": id_, "RepoTags": sorted(names)} for id_, names in self.images.items()]
            await _send(p, json.dumps(found).encode())
        elif path == "/images/load":
            with tarfile.open(fileobj=io.BytesIO(body)) as tar:
                entry = json.load(tar.extractfile("manifest.json"))[0]  # type: ignore[arg-type]
                id_ = digest(tar.extractfile(entry["Config"]).read())  # type: ignore[union-attr]
            for names in self.images.values():
                names.difference_update(entry["RepoTags"])
            self.images.setdefault(id_, set()).update(entry["RepoTags"])
            await _send(p, b"")
        elif path == "/images/get":
            wanted = query["names"][0]
            if self.cut:
                await p.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nsome")
                return
            if self.other:
                await _send(p, made(["other:latest"], "other")[1])
                return
            await _send(p, self.archives[next(i for i, n in self.images.items() if wanted in n or wanted == i)])
        elif path == "/system/df":
            await _send(p, json.dumps({"BuildCache": self.cache}).encode())
        elif path == "/build/prune":
            gone = [each for each in self.cache if not each["InUse"] and ("all" in query or each["Old"])]
            self.cache = [each for each in self.cache if each not in gone]
            freed = sum(int(str(each["Size"])) for each in gone)
            told = {"CachesDeleted": [each["ID"] for each in gone], "SpaceReclaimed": freed}
            await _send(p, json.dumps(told).encode())
        elif method == "DELETE":
            wanted = path.removeprefix("/images/")
            self.images.pop(wanted, None)
            for names in self.images.values():
                names.discard(wanted)
            await _send(p, b"[]")
        else:
            await _send(p, b'{"message": "no such thing"}', "404 Not Found")

    async def _build(self, p: FakeProcess, stream: _Stream, head: str, query: dict[str, list[str]]) -> None:
        if "/grpc" in head or "/session" in head:
            self.heads.append(head)
            await p.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
            self.contexts.append(await stream.until(b"END"))
            query = {"t": ["passed:latest"]}
            if "/session" in head:
                await p.write(b"DONE")
                return
        else:
            self.contexts.append(await stream.body(head))
        if self.slow:
            try:
                await self.slow.wait()
            except asyncio.CancelledError:  # the relay is killed, whose socket ends with it
                self.left.set()
                raise
        if self.failing:
            await _send(p, json.dumps({"errorDetail": {}, "error": self.failing}).encode() + b"\r\n")
            return
        self.builds += 1
        id_ = self.have(query.get("t", []), hashlib.sha256(self.contexts[-1]).hexdigest())
        if "/grpc" in head:
            await p.write(b"" if self.silent else solved(id_, "docker.io/library/passed"))
            await p.write(b"DONE")
            return
        await _send(p, b'{"stream": "Step 1"}\r\n{"aux": {"ID": "%s"}}\r\n' % id_.encode())


def solved(id_: str, names: str) -> bytes:
    """BuildKit's answer to a build: a message of gRPC, in two frames of HTTP/2 of stream 1."""
    said = {"image.name": names, "containerimage.config.digest": id_}
    message = b"".join(encoded({1: encoded({1: key, 2: value})}) for key, value in said.items())
    message = b"\0" + len(message).to_bytes(4, "big") + message
    return _frame(message[:50]) + _frame(message[50:], flags=1)


def _frame(content: bytes, flags: int = 0) -> bytes:
    return len(content).to_bytes(3, "big") + bytes([0, flags]) + (1).to_bytes(4, "big") + content


async def _send(p: FakeProcess, body: bytes, status: str = "200 OK") -> None:
    kind = "Content-Type: application/json"
    await p.write(f"HTTP/1.1 {status}\r\n{kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


class _Stream:
    """What a process reads, by parts."""

    def __init__(self, p: FakeProcess) -> None:
        self._p = p
        self._data = b""

    async def until(self, end: bytes) -> bytes:
        """With that; b"" when there is no more before it comes."""
        while end not in self._data:
            if not (more := await self._p.read()):
                return b""
            self._data += more
        found, _, self._data = self._data.partition(end)
        return found + end

    async def exactly(self, size: int) -> bytes:
        while len(self._data) < size and (more := await self._p.read()):
            self._data += more
        found, self._data = self._data[:size], self._data[size:]
        return found

    async def body(self, head: str) -> bytes:
        lower = head.lower()
        if "chunked" not in lower:
            size = lower.partition("content-length: ")[2].partition("\r\n")[0]
            return await self.exactly(int(size or 0))
        found = b""
        while size := int(await self.until(b"\r\n"), 16):
            found += await self.exactly(size)
            await self.until(b"\r\n")
        await self.until(b"\r\n")
        return found
