# SPDX-License-Identifier: Apache-2.0
"""CRI: exec, attach and port-forward by URLs; with a websocket's client, and with one of SPDY's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from hypercontainer.cri.streaming import tickets, wires
from hypercontainer.cri.streaming.spdy_forward import PROTOCOL as PORTS
from hypercontainer.errors import Conflict, InvalidArgument
from hypercontainer.guest.fake import FakeGuest
from hypercontainer.guest.fake_process import FakeProcess
from hypercontainer.hyperd.listening import streaming_socket
from tests.spdy import LIMIT, Refused, SpdyClient, listening, upgraded

from .cri_client import Client, refused, served
from .stage import Stage
from .test_cri_containers import run
from .test_cri_sandboxes import sandbox

V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
TUNNEL = f"SPDY/3.1+{PORTS}"
OK = {"metadata": {}, "status": "Success"}


async def _shout(p: FakeProcess) -> int:
    """Both outputs, with what is read; the exit code is the number of lines, 200 at most."""
    await p.write(b"begin\n")
    lines = 0
    while data := await p.read():
        await p.write(data.upper())
        await p.write(data.lower(), 2)
        lines += data.count(b"\n")
    return min(lines, 200)


async def _sized(p: FakeProcess) -> int:
    while p.size == (0, 0):
        await asyncio.sleep(0.001)
    await p.write("{} x {}\n".format(*p.size).encode())
    return 0


def prepare(s: Stage) -> None:
    made = s.host._guest

    def guest(config: Any) -> FakeGuest:
        found = made(config)
        found.programs |= {"shout": _shout, "sized": _sized}
        found.servers |= {80: _shout, 81: _forever}
        return found

    s.host._guest = guest


async def _forever(p: FakeProcess) -> int:
    """Listens, and takes nothing."""
    await p.write(b"hello")
    await asyncio.get_running_loop().create_future()
    return 0


@contextlib.asynccontextmanager
async def running(template: Path, *command: str, **fields: Any) -> AsyncIterator[tuple[Stage, Client, str, str]]:
    """A container in a sandbox."""
    async with served(template, prepare=prepare) as (s, client):
        pod = await sandbox(client)
        yield s, client, pod, await run(client, pod, "main", *(command or ("sleep", "100000")), **fields)


async def exec_url(client: Client, id_: str, *cmd: str, **fields: Any) -> str:
    wanted = {"stdin": True, "stdout": True, "stderr": True} | fields
    return str((await client.Exec(container_id=id_, cmd=cmd, **wanted)).url)


@contextlib.asynccontextmanager
async def websocket(url: str, *protocols: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(url, protocols=protocols, max_msg_size=0) as ws:
            yield ws


async def heard(ws: aiohttp.ClientWebSocketResponse, channels: dict[int, bytes] | None = None) -> dict[int, bytes]:
    """By channel, until the server ends the websocket."""
    found = channels if channels is not None else {}
    async with asyncio.timeout(LIMIT):
        async for message in ws:
            found[message.data[0]] = found.get(message.data[0], b"") + message.data[1:]
    return found


async def until(ws: aiohttp.ClientWebSocketResponse, found: dict[int, bytes], channel: int, text: bytes) -> None:
    async with asyncio.timeout(LIMIT):
        while text not in found.get(channel, b""):
            data = (await ws.receive()).data
            found[data[0]] = found.get(data[0], b"") + data[1:]


# -- websockets ---------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [V5, V4, "channel.k8s.io", ""])
async def test_exec_over_a_websocket(template: Path, protocol: str) -> None:
    async with running(template) as (_, client, _, id_):
        async with websocket(
            await exec_url(client, id_, "exit", "3"), *(["other", protocol] if protocol else [])
        ) as ws:
            assert ws.protocol == (protocol or None)
            found = await heard(ws)
            assert ws.close_code == 1000
        if protocol in (V5, V4):
            status = json.loads(found[3])
            assert (status["reason"], status["details"]) == (
                "NonZeroExitCode", {"causes": [{"reason": "ExitCode", "message": "3"}]}
            )  # fmt: skip
        else:
            assert found[3] == b"command terminated with exit code 3"


async def test_input_to_its_end_and_both_outputs_over_a_websocket(template: Path) -> None:
    async with running(template) as (_, client, _, id_):
        async with websocket(await exec_url(client, id_, "shout"), V5) as ws:
            found: dict[int, bytes] = {}
            await until(ws, found, 1, b"begin")
            await ws.send_bytes(b"\0Hello\n")
            await ws.send_str("\0World\n")  # as Kubernetes' client for Python writes text
            await until(ws, found, 1, b"WORLD\n")
            await ws.send_bytes(b"\xff\0")
            await heard(ws, found)
    assert found[1] == b"begin\nHELLO\nWORLD\n" and found[2] == b"hello\nworld\n"
    assert json.loads(found[3])["details"]["causes"][0]["message"] == "2"


async def test_what_cannot_be_started_is_told(template: Path) -> None:
    async with running(template) as (_, client, _, id_):
        async with websocket(await exec_url(client, id_, "none"), V5) as ws:
            status = json.loads((await heard(ws))[3])
        assert status["status"] == "Failure" and '"none"' in status["message"] and status["code"] == 500
        url = await exec_url(client, id_, "echo")
        await client.StopContainer(container_id=id_)
        async with websocket(url, V5) as ws:
            assert "is not running" in json.loads((await heard(ws))[3])["message"]
        assert (await refused(client.Exec(container_id=id_, cmd=["x"], stdout=True)))[0] == "FAILED_PRECONDITION"


async def test_a_terminal_and_its_size(template: Path) -> None:
    async with running(template) as (_, client, _, id_):
        url = await exec_url(client, id_, "sized", tty=True, stderr=False)
        async with websocket(url, V5) as ws:
            await ws.send_bytes(b'\4{"Width":80,"Height":25}')
            found = await heard(ws)
        assert found[1] == b"25 x 80\n" and json.loads(found[3]) == OK
        for bad in (b"\4{", b'\4{"Width":-1,"Height":2}', b'\4{"Width":70000,"Height":2}', b"\xff"):
            async with websocket(await exec_url(client, id_, "sized", tty=True, stderr=False), V5) as ws:
                await ws.send_bytes(bad)
                assert json.loads((await heard(ws))[3])["status"] == "Failure"


async def test_attach_and_a_second_client(template: Path) -> None:
    async with running(template, "shout", stdin=True) as (_, client, _, id_):
        asked = {"container_id": id_, "stdin": True, "stdout": True}
        for word in (b"one", b"two"):  # with no `stdin_once`, input goes on when a client has gone
            async with websocket((await client.Attach(**asked)).url, V5) as ws:
                found: dict[int, bytes] = {}
                await ws.send_bytes(b"\0" + word)
                await until(ws, found, 1, word.upper())
                await ws.send_bytes(b"\xff\0")
        async with websocket((await client.Attach(**asked)).url, V5) as ws:
            await ws.receive()  # it stands
            await client.StopContainer(container_id=id_)
            assert json.loads((await heard(ws))[3]) == OK  # attaching has worked, whatever the exit code
        assert (await refused(client.Attach(**asked)))[0] == "FAILED_PRECONDITION"


async def test_input_that_ends_with_the_first_client(template: Path) -> None:
    async with running(template, "shout", stdin=True, stdin_once=True) as (_, client, _, id_):
        url = (await client.Attach(container_id=id_, stdin=True, stdout=True)).url
        async with websocket(url, V5) as ws:
            await ws.send_bytes(b"\0x\n")
            await ws.send_bytes(b"\xff\0")
            assert (await heard(ws))[1].endswith(b"X\n")
        status = (await client.ContainerStatus(container_id=id_)).status
        assert status.exit_code == 1


async def test_keys_are_not_for_us(template: Path) -> None:
    """Docker's keys to detach are a terminal's own input here."""
    async with running(template) as (_, client, _, id_):
        async with websocket(await exec_url(client, id_, "cat", tty=True, stderr=False), V5) as ws:
            await ws.send_bytes(b"\0\x10\x11word")
            await until(ws, {}, 1, b"\x10\x11word")
            await ws.send_bytes(b"\xff\0")


# -- URLs -----------------------------------------------------------------------------------


async def test_a_url_is_used_once_and_expires(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(template) as (_, client, pod, id_):
        url = await exec_url(client, id_, "echo", "hi")
        async with aiohttp.ClientSession() as session:
            for used in (url, url.rpartition("/")[0] + "/none", url.replace("/exec/", "/attach/")):
                if used == url:
                    async with websocket(url, V5) as ws:
                        assert (await heard(ws))[1] == b"hi\n"
                async with session.get(used, headers={"Connection": "Upgrade", "Upgrade": "websocket"}) as answer:
                    assert answer.status == 404 and "was used before" in (await answer.json())["message"]
            async with session.get(await exec_url(client, id_, "echo")) as answer:
                assert answer.status == 400 and "takes a websocket" in (await answer.json())["message"]
            with pytest.raises(Refused, match="none of the protocols that are offered is known: v9"):
                async with upgraded(await exec_url(client, id_, "echo"), "v9.channel.k8s.io"):
                    pass
            monkeypatch.setattr(tickets, "LIFETIME", 0.0)
            headers = {"Connection": "Upgrade", "Upgrade": "websocket"}
            async with session.get(await exec_url(client, id_, "echo"), headers=headers) as answer:
                assert answer.status == 404
        monkeypatch.setattr(tickets, "LIFETIME", 60.0)
        monkeypatch.setattr(tickets, "TICKETS_MAX", 0)
        said = await refused(client.PortForward(pod_sandbox_id=pod, port=[80]))
        assert said[0] == "UNAVAILABLE" and "not begun" in said[1]


async def test_what_makes_no_sense_is_refused(template: Path) -> None:
    async with running(template) as (_, client, pod, id_):
        for call in (
            client.Exec(container_id=id_, cmd=["x"]),
            client.Exec(container_id=id_, stdout=True),
            client.Exec(container_id=id_, cmd=["x"], stdout=True, stderr=True, tty=True),
            client.Attach(container_id=id_, stdin=True),
            client.PortForward(pod_sandbox_id=pod, port=[0]),
            client.PortForward(pod_sandbox_id=pod, port=[65536]),
        ):
            assert (await refused(call))[0] == "INVALID_ARGUMENT"
        await client.StopPodSandbox(pod_sandbox_id=pod)
        assert (await refused(client.PortForward(pod_sandbox_id=pod, port=[80])))[0] == "FAILED_PRECONDITION"
        assert (await refused(client.PortForward(pod_sandbox_id="none")))[0] == "NOT_FOUND"


# -- SPDY ----------------------------------------------------------------------------------


async def streams(spdy: SpdyClient, *kinds: str) -> dict[str, int]:
    made = {kind: await spdy.open(streamtype=kind) for kind in kinds}
    await spdy.until(lambda: spdy.replied >= set(made.values()))
    return made


async def gone(spdy: SpdyClient) -> None:
    """Until the server has ended the connection."""
    async with asyncio.timeout(LIMIT):
        await spdy.ended.wait()


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v2.channel.k8s.io", ""])
async def test_exec_over_spdy(template: Path, protocol: str) -> None:
    async with running(template) as (_, client, _, id_):
        url = await exec_url(client, id_, "shout")
        async with upgraded(url, *filter(None, ["v9.x", protocol])) if protocol else upgraded(url) as spdy:
            assert f"X-Stream-Protocol-Version: {protocol or 'channel.k8s.io'}\r\n" in spdy.head
            s = await streams(spdy, "error", "stdin", "stdout", "stderr")
            await spdy.ping(7)
            await spdy.send(s["stdin"], b"Hello\n" * 20_000)  # larger than one piece, and than what may wait
            await spdy.send(s["stdin"], b"World\n", fin=True)
            await spdy.until(lambda: spdy.over >= set(s.values()) and spdy.gone_away)
            assert spdy.heard[s["stdout"]] == b"begin\n" + b"HELLO\n" * 20_000 + b"WORLD\n"
            assert spdy.heard[s["stderr"]] == b"hello\n" * 20_000 + b"world\n" and spdy.pings == [7]
            words = bytes(spdy.heard[s["error"]])
            if protocol == "v4.channel.k8s.io":
                assert json.loads(words)["reason"] == "NonZeroExitCode"
            else:
                assert words == b"command terminated with exit code 200"


async def test_a_terminal_over_spdy(template: Path) -> None:
    async with running(template) as (_, client, _, id_):
        async with upgraded(await exec_url(client, id_, "sized", tty=True, stderr=False), V4) as spdy:
            s = await streams(spdy, "error", "stdin", "stdout", "resize")
            await spdy.send(s["resize"], b'{"Width":80,"He')
            await spdy.send(s["resize"], b'ight":25}\n')
            await spdy.until(lambda: s["error"] in spdy.over)
            assert bytes(spdy.heard[s["stdout"]]) == b"25 x 80\n" and json.loads(spdy.heard[s["error"]]) == OK


async def test_a_client_that_does_not_keep_to_spdy_is_left(template: Path) -> None:
    async with running(template) as (s, client, _, id_):
        for bad in (
            struct.pack(">HHI", 0x8002, 6, 4),
            struct.pack(">HHIII", 0x8003, 1, 8, 1, 0) * 3,
            b"\x80\x03" + b"\xff" * 9,
        ):
            async with upgraded(await exec_url(client, id_, "echo"), V4) as spdy:
                await spdy.raw(bad)
                await gone(spdy)
        async with upgraded(await exec_url(client, id_, "echo", stdin=False), V4) as spdy:
            wrong = [await spdy.open(streamtype="none"), await spdy.open(), await spdy.open(streamtype="stdin")]
            await spdy.until(lambda: spdy.reset.keys() >= set(wrong))
            await streams(spdy, "error", "stdout", "stderr")
            await spdy.until(lambda: spdy.gone_away)
        assert s.engine.execs.of(id_) == []


async def test_who_makes_no_streams_is_left(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hypercontainer.cri.streaming.spdy_command.CREATION", 0.05)
    async with running(template) as (s, client, _, id_):
        async with upgraded(await exec_url(client, id_, "echo"), V4) as spdy:
            for kind in ("error", "stdin"):
                await spdy.open(streamtype=kind)
            await gone(spdy)
        assert not s.engine.execs._execs


async def test_who_says_nothing_is_left(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[wires.Activity] = []

    class Activity(wires.Activity):
        def __init__(self) -> None:
            super().__init__()
            seen.append(self)

    monkeypatch.setattr(wires, "Activity", Activity)
    monkeypatch.setattr(wires, "_LOOK", 0.01)
    async with running(template) as (_, client, pod, id_):
        async with websocket(await exec_url(client, id_, "cat"), V5) as ws:
            await ws.receive()  # it stands
            seen[-1].last -= wires.IDLE
            await heard(ws)
            assert ws.close_code == 1006  # it broke
        async with upgraded((await client.PortForward(pod_sandbox_id=pod)).url) as spdy:
            seen[-1].last -= wires.IDLE
            await gone(spdy)


# -- ports ---------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def tunnel(url: str) -> AsyncIterator[SpdyClient]:
    """SPDY in a websocket's messages, as kubectl since 1.31."""
    async with websocket(url, TUNNEL) as ws:
        assert ws.protocol == TUNNEL

        async def read() -> bytes:
            message = await ws.receive()
            return bytes(message.data) if message.type is aiohttp.WSMsgType.BINARY else b""

        async with listening(SpdyClient(read, ws.send_bytes)) as spdy:
            yield spdy


async def connection(spdy: SpdyClient, port: int, number: str) -> tuple[int, int]:
    """Its data, and why it failed."""
    asked = {"port": str(port)} | ({"requestid": number} if number else {})
    error = await spdy.open(streamtype="error", **asked)
    await spdy.send(error, b"", fin=True)
    return await spdy.open(streamtype="data", **asked), error


@pytest.mark.parametrize("how", [upgraded, tunnel])
async def test_ports_over_spdy(template: Path, how: Any) -> None:
    async with running(template) as (_, client, pod, _):
        url = (await client.PortForward(pod_sandbox_id=pod, port=[80])).url
        async with how(url) if how is tunnel else how(url, PORTS) as spdy:
            one, one_failed = await connection(spdy, 80, "0")
            two, _ = await connection(spdy, 81, "1")
            await spdy.until(lambda: spdy.heard[two] == b"hello")
            await spdy.send(one, b"word\n" * 10_000)
            await spdy.send(one, b"last", fin=True)
            await spdy.until(lambda: {one, one_failed} <= spdy.over)
            assert spdy.heard[one] == b"begin\n" + b"WORD\n" * 10_000 + b"LAST"
            data, failed = await connection(spdy, 82, "2")
            await spdy.until(lambda: {data, failed} <= spdy.over)
            assert b"port 82 within the pod: Connection refused" in spdy.heard[failed]
            asked = [{"streamtype": "data", "port": "0"}, {"streamtype": "x", "port": "80"}, {"port": "x"}]
            wrong = [await spdy.open(**a) for a in [*asked, {"streamtype": "data", "port": "80", "requestid": "1"}]]
            await spdy.until(lambda: spdy.reset.keys() >= set(wrong))
            data, failed = await connection(spdy, 80, "")  # of a client that gives no numbers
            await spdy.send(data, b"x", fin=True)
            await spdy.until(lambda: data in spdy.over)
            assert spdy.heard[data] == b"begin\nX"
            await spdy.cancel(two)
            third, _ = await connection(spdy, 81, "3")  # others go on
            await spdy.until(lambda: spdy.heard[third] == b"hello")


async def test_connections_are_counted_and_end_with_the_client(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hypercontainer.engine.forwards._EACH_MAX", 2)
    async with running(template) as (s, client, pod, _):
        async with upgraded((await client.PortForward(pod_sandbox_id=pod)).url, PORTS) as spdy:
            for n in range(2):
                data, _ = await connection(spdy, 81, str(n))
                await spdy.until(lambda data=data: spdy.heard[data] == b"hello")
            data, failed = await connection(spdy, 81, "2")
            await spdy.until(lambda: failed in spdy.over)
            assert b"forwarded connections" in spdy.heard[failed]
        async with asyncio.timeout(LIMIT):
            while s.engine.forwards._open or len(next(iter(s.host.machines.values())).guest.processes) > 1:
                await asyncio.sleep(0.01)


async def test_half_a_connection_is_given_up(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hypercontainer.cri.streaming.spdy_forward.CREATION", 0.05)
    async with running(template) as (_, client, pod, _):
        async with upgraded((await client.PortForward(pod_sandbox_id=pod)).url, PORTS) as spdy:
            alone = await spdy.open(streamtype="data", port="80", requestid="5")
            await spdy.until(lambda: alone in spdy.reset)


async def test_a_server_that_takes_nothing_holds_its_client_back(
    template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wires, "_LOOK", 0.05)
    async with running(template) as (s, client, pod, _):
        async with upgraded((await client.PortForward(pod_sandbox_id=pod)).url, PORTS) as spdy:
            data, _ = await connection(spdy, 81, "0")

            async def send() -> None:
                for _ in range(64):  # more than all buffers between the two have room for
                    await spdy.send(data, b"x" * (1 << 20))

            flood = asyncio.create_task(send())
            await spdy.until(lambda: spdy.heard[data] == b"hello")
            done, _ = await asyncio.wait([flood], timeout=0.2)
            assert not done
            flood.cancel()
            await asyncio.gather(flood, return_exceptions=True)
        async with asyncio.timeout(LIMIT):  # nobody reads what it sends, and it is seen to have gone
            while s.engine.forwards._open:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("named", [True, False])
async def test_ports_over_a_websocket_s_channels(template: Path, named: bool) -> None:
    async with running(template) as (_, client, pod, _):
        url = (await client.PortForward(pod_sandbox_id=pod, port=[80, 82] if named else [])).url
        async with websocket(url if named else url + "?ports=80,82", V4) as ws:
            found: dict[int, bytes] = {}
            await until(ws, found, 0, b"begin\n")
            await ws.send_bytes(b"\0word\n")
            await until(ws, found, 0, b"WORD\n")
            await until(ws, found, 3, b"Connection refused")
        assert found[0][:2] == found[1] == struct.pack("<H", 80) and found[3][:2] == struct.pack("<H", 82)
        url = (await client.PortForward(pod_sandbox_id=pod)).url
        async with aiohttp.ClientSession() as session:
            for query in ("", "?ports=0", "?ports=x", "?port=65536", "?ports=" + ",".join(["1"] * 65)):
                url = (await client.PortForward(pod_sandbox_id=pod)).url
                headers = {"Connection": "Upgrade", "Upgrade": "websocket"}
                async with session.get(url + query, headers=headers) as answer:
                    assert answer.status == 400, query


# -- where it listens ----------------------------------------------------------------------


@pytest.mark.parametrize("url", ["tcp://0.0.0.0:0", "tcp://192.0.2.1:10", "tcp://example.org:0"])
def test_streams_are_for_this_host_alone(url: str) -> None:
    with pytest.raises(InvalidArgument, match="is not this host's own: write tcp://127.0.0.1:PORT"):
        streaming_socket(url)


def test_a_port_that_is_taken_is_told() -> None:
    with streaming_socket("tcp://127.0.0.1:0") as taken:
        with pytest.raises(Conflict, match="cannot listen on"):
            streaming_socket(f"tcp://127.0.0.1:{taken.getsockname()[1]}")
