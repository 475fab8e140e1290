# SPDX-License-Identifier: Apache-2.0
"""A server in a container, which every driver runs the same way."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection

from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.daemon import build_engine
from hypercontainer.model.specs import Mount, PortMapping
from hypercontainer.model.status import ContainerStatus
from tests.vm.conftest import DEADLINE, Lab
from tests.vm.test_factory import until

SERVE = "echo started; mkdir -p /w; echo page >/w/index.html; exec httpd -f -p 80 -h /w"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        number: int = sock.getsockname()[1]
        return number


async def page(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    text = (await asyncio.wait_for(reader.read(), DEADLINE)).decode()
    writer.close()
    return text


async def a_server_goes_on(
    lab: Lab, config: Config, by: tuple[str, str], *, taken: Callable[[], Collection[str]],
    left: Callable[[], Collection[str]],
) -> str:  # fmt: skip
    """Network, published port, volume, exec, logs; hyperd dies, the next one takes it up; stop, start. The container.

    `by` are driver and accelerator; `taken` is what a machine has of this host, one while it runs, and `left` what
    nothing may be of once it is stopped.
    """
    port = PortMapping(container_port=80, host_port=free_port(), host_ip="127.0.0.1")
    mounts = [Mount(type="volume", source="kept", target="/data")]
    id_ = await lab.create("sh", "-c", SERVE, ports=[port], mounts=mounts)
    await lab.engine.containers.start(id_)
    await lab.printed(id_, "started")
    pod = lab.engine.registry.pod(id_)
    assert pod.vm and (pod.vm.driver, pod.vm.accelerator) == by
    assert (await lab.exec(id_, "sh", "-c", "echo 1 >/data/f; sync; uname -r")).out.endswith("-hyper\n")
    assert "page" in await page(port.host_port) and len(taken()) == 1
    await lab.engine.close(keep_running=True)
    lab.engine = build_engine(config)
    await lab.engine.open()
    assert lab.engine.registry.container(id_).state.status is ContainerStatus.RUNNING
    assert (await lab.exec(id_, "echo", "again")).out == "again\n"
    assert "page" in await page(port.host_port)
    await lab.engine.containers.stop(id_, timeout=1)
    await until(lambda: not left(), "nothing that is left")
    await lab.engine.containers.start(id_)
    assert (await lab.exec(id_, "cat", "/data/f")).out == "1\n"
    return id_
