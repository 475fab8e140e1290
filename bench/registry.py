# SPDX-License-Identifier: Apache-2.0
"""docker-registry on loopback of a network namespace."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .measure import run

PORT = 5000


class Registry:
    """Runs as long as the `with`; gives its address."""

    def __init__(self, directory: Path, namespace: str) -> None:
        config = directory / "config.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {directory}/store}}}}\n"
            f"http: {{addr: '127.0.0.1:{PORT}'}}\n"
        )
        self._inside = ["nsenter", f"--net=/run/netns/{namespace}"]
        command = [*self._inside, "docker-registry", "serve", str(config)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self) -> str:
        wait = (
            "import socket,time\n"
            "for _ in range(200):\n"
            f"    if socket.socket().connect_ex(('127.0.0.1', {PORT})) == 0: break\n"
            "    time.sleep(0.05)\n"
            "else: raise SystemExit('docker-registry does not answer')\n"
        )
        run([*self._inside, sys.executable, "-I", "-c", wait])
        return f"localhost:{PORT}"

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
