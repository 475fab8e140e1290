# SPDX-License-Identifier: Apache-2.0
"""kubectl itself, by old and new protocols: an API server hands its connections through to the streaming server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from .cri_client import Client
from .test_cri_streams import running

KUBECTL = os.environ.get("KUBECTL") or shutil.which("kubectl")
LIMIT = 60.0  # seconds for a command
pytestmark = pytest.mark.skipif(not KUBECTL, reason="there is no kubectl")
POD = {
    "kind": "Pod", "apiVersion": "v1", "metadata": {"name": "web", "namespace": "default"},
    "spec": {"containers": [{"name": "main", "image": "x", "stdin": True}]}, "status": {"phase": "Running"},
}  # fmt: skip
PODS = {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get"]}
DOCUMENTS: dict[str, Any] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [PODS]},
    "/api/v1/namespaces/default/pods/web": POD,
}


class ApiServer:
    """Knows one pod; a stream is asked for by CRI, and its connection handed through, as a kubelet does."""

    def __init__(self, client: Client, pod: str, container: str) -> None:
        self._client, self._pod, self._container = client, pod, container
        self.upgrades: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, _, fields = head.partition(b"\r\n")
                url = urlsplit(first.split()[1].decode())
                if b"upgrade:" in fields.lower():
                    return await self._hand_through(url, first.split()[0], fields, reader, writer)
                body = json.dumps(DOCUMENTS.get(url.path, {"kind": "Status"})).encode()
                code = b"200 OK" if url.path in DOCUMENTS else b"404 Not Found"
                writer.write(b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                             % (code, len(body), body))  # fmt: skip
        writer.close()

    async def _url(self, path: str, query: dict[str, list[str]]) -> str:
        flags = {name: query.get(name) == ["true"] for name in ("stdin", "stdout", "stderr", "tty")}
        if path.endswith("/exec"):
            asked = self._client.Exec(container_id=self._container, cmd=query["command"], **flags)
        elif path.endswith("/attach"):
            asked = self._client.Attach(container_id=self._container, **flags)
        else:
            asked = self._client.PortForward(pod_sandbox_id=self._pod)
        return str((await asked).url)

    async def _hand_through(self, url: Any, method: bytes, fields: bytes, reader: Any, writer: Any) -> None:
        there = urlsplit(await self._url(url.path, parse_qs(url.query)))
        self.upgrades.append("websocket" if b"websocket" in fields.lower() else "spdy")
        far_reader, far_writer = await asyncio.open_connection(there.hostname, there.port)
        far_writer.write(method + b" " + there.path.encode() + b" HTTP/1.1\r\n" + fields)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(1 << 16):
                    target.write(data)
                    await target.drain()

        copies = [asyncio.create_task(copy(reader, far_writer)), asyncio.create_task(copy(far_reader, writer))]
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        for end in (far_writer, writer):
            end.close()
        await asyncio.gather(*copies)


@contextlib.asynccontextmanager
async def cluster(template: Path, tmp_path: Path, *command: str, **fields: Any) -> AsyncIterator[Any]:
    """kubectl as a function, and the API server."""
    async with running(template, *command, **fields) as (_, client, pod, id_):
        api = ApiServer(client, pod, id_)
        server = await asyncio.start_server(api.serve, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

        async def kubectl(*args: str, stdin: bytes = b"", spdy: bool = False) -> tuple[int, bytes, bytes]:
            process = await start(*args, spdy=spdy)
            async with asyncio.timeout(LIMIT):
                out, err = await process.communicate(stdin)
            return process.returncode or 0, out, err

        async def start(*args: str, spdy: bool = False) -> asyncio.subprocess.Process:
            new = "false" if spdy else "true"
            env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": new,
                   "KUBECTL_PORT_FORWARD_WEBSOCKETS": new}  # fmt: skip
            pipe = asyncio.subprocess.PIPE
            return await asyncio.create_subprocess_exec(
                str(KUBECTL), "--server", address, *args, env=env, stdin=pipe, stdout=pipe, stderr=pipe
            )

        async with server:
            yield kubectl, start, api


@pytest.mark.parametrize("spdy", [True, False])
async def test_kubectl_exec_and_attach(template: Path, tmp_path: Path, spdy: bool) -> None:
    async with cluster(template, tmp_path, "shout", stdin=True, stdin_once=True) as (kubectl, _, api):
        done = await kubectl("exec", "web", "--", "echo", "hi", spdy=spdy)
        assert done == (0, b"hi\n", b"")
        code, out, err = await kubectl("exec", "-i", "web", "--", "shout", stdin=b"Word\n" * 3, spdy=spdy)
        assert (code, out) == (3, b"begin\n" + b"WORD\n" * 3)
        assert err.startswith(b"word\n" * 3) and b"exit code 3" in err
        code, out, err = await kubectl("exec", "web", "--", "none", spdy=spdy)
        assert code and b'"none": executable file not found' in err
        code, out, _ = await kubectl("attach", "-i", "web", stdin=b"Attached\n", spdy=spdy)
        assert code == 0 and b"ATTACHED\n" in out
        assert set(api.upgrades) == {"spdy" if spdy else "websocket"}


@pytest.mark.parametrize("spdy", [True, False])
async def test_kubectl_port_forward(template: Path, tmp_path: Path, spdy: bool) -> None:
    async with cluster(template, tmp_path) as (_, start, api):
        process = await start("port-forward", "--address", "127.0.0.1", "pod/web", ":80", spdy=spdy)
        try:
            async with asyncio.timeout(LIMIT):
                line = (await process.stdout.readline()).decode()
                port = int(line.split(":")[1].split()[0])
                for word in (b"one", b"two"):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(word)
                    writer.write_eof()
                    assert await reader.read() == b"begin\n" + word.upper()
                    writer.close()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()
        assert set(api.upgrades) == {"spdy" if spdy else "websocket"}
