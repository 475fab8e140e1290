# SPDX-License-Identifier: Apache-2.0
"""A daemon in a network namespace, and servers in another one that tell what reaches them."""

from __future__ import annotations

import contextlib
import json
import queue
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.certificates import Authority

from ..conftest import launched
from ..test_networks import World, namespaces
from ..test_pods import load
from . import image

OUTSIDE = "203.0.113.2"
NAMES = ("api.example.test", "other.example.test", "deep.sub.example.test", "evil.test")
CURL = "curl -sS -m 30 --retry 2 --retry-connrefused"
# What curl says of a connection that is reset, by when that is: before it is made, before curl has looked, or after.
RESET = re.compile(r"curl: \((7|55|56)\)")
_PROGRAM = Path(__file__).with_name("outside.py")
_DEADLINE = 60.0  # seconds


@dataclass
class Outside(World):
    """With what arrives outside."""

    heard: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    ca: Path = Path()

    def arrivals(self) -> list[dict[str, Any]]:
        """All since this was last asked: a sign is sent from this host, and what comes before it has come."""
        sign = f"sign-{id(object())}.test"
        script = f"""import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
s.sendto(b'\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0' + b''.join(bytes([len(x)]) + x.encode() for x in {sign.split(".")!r})
         + b'\\0\\0\\1\\0\\1', ({OUTSIDE!r}, 53))
s.recv(512)"""
        self.host(sys.executable, "-c", script)
        found = []
        while (told := self.heard.get(timeout=_DEADLINE)).get("name") != sign:
            found.append(told)
        return [told for told in found if not (told["kind"] == "packet" and told["port"] == 53)]


@contextlib.contextmanager
def outside(namespace: str, directory: Path) -> Iterator[tuple[queue.Queue[dict[str, Any]], Path]]:
    """The servers; what they tell, and the certificate of their CA."""
    authority = Authority(directory / "outside")
    pair = authority.sign("outside", server=True, further=NAMES)
    heard: queue.Queue[dict[str, Any]] = queue.Queue()
    process = subprocess.Popen(
        ["ip", "netns", "exec", namespace, sys.executable, _PROGRAM, OUTSIDE, pair.cert, pair.key],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout

    def listen() -> None:
        assert process.stdout
        for line in process.stdout:
            heard.put(json.loads(line))

    with process:
        ear = threading.Thread(target=listen, daemon=True)
        ear.start()
        try:
            assert heard.get(timeout=_DEADLINE) == {"kind": "ready"}
            yield heard, authority.cert
        finally:
            process.kill()


@contextlib.contextmanager
def worlds(directory: Path, tag: str) -> Iterator[Outside]:
    """A host whose hyperd lets hosts of policies be in the network of the servers, and an image `tools`."""
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(namespaces(tag))
        own = Path("/etc/netns") / host
        own.mkdir(parents=True)
        stack.callback(shutil.rmtree, own)
        (own / "resolv.conf").write_text(f"nameserver {OUTSIDE}\n")
        heard, ca = stack.enter_context(outside(host.replace("host", "out"), directory))
        config = directory / "hyperd.toml"
        config.write_text('egress_networks = ["203.0.113.0/24"]\n')
        daemon = stack.enter_context(
            launched(directory / "root", "--config", str(config), "--network", "bridge",
                     prefix=("ip", "netns", "exec", host, "env", f"SSL_CERT_FILE={ca}"))
        )  # fmt: skip
        load(daemon, image.layout(), "tools")
        yield Outside(host, daemon, heard, ca)
