# SPDX-License-Identifier: Apache-2.0
"""A registry that sends skopeo on to this host's loopback, for somebody who may not have this host's own addresses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SCRIPT = """
    import asyncio, json, subprocess, sys, threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from pathlib import Path
    from hypercontainer.errors import HyperError
    from hypercontainer.images.store import ImageStore
    from hypercontainer.jail import helpers
    from hypercontainer.jail.hyperjail import HyperJail
    from hypercontainer.network.fence import Fence

    SECRET, HOST = "127.0.0.1:6000", "192.0.2.1:5000"  # an address of RFC 5737, which is not near
    asked, told = [], []

    class Registry(BaseHTTPRequestHandler):
        def do_GET(self):
            told.append(self.path)
            self.send_response(200 if self.path == "/v2/" else 307)
            if self.path != "/v2/":
                self.send_header("Location", f"http://{SECRET}/credentials")
            self.send_header("Content-Length", "0")
            self.end_headers()
        do_HEAD = do_GET
        def log_message(self, *_): ...

    class Secret(Registry):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)
        do_HEAD = do_GET

    for command in ("link set lo up", "addr add 192.0.2.1/32 dev lo"):
        subprocess.run(["ip", *command.split()], check=True)
    for kind, at in ((Registry, HOST), (Secret, SECRET)):
        server = ThreadingHTTPServer((at.partition(":")[0], int(at.partition(":")[2])), kind)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    place = Path(sys.argv[1])
    jail = HyperJail(place / "jail")
    if why := jail.hindrance():
        sys.exit(f"skip: {why}")
    helpers.use(jail)
    fence = Fence(place)

    async def look(wall):
        (place / "images").mkdir(exist_ok=True)
        store = ImageStore(place / "images", insecure=frozenset({HOST}), wall=lambda: wall)
        store.open()
        asked.clear(), told.clear()
        others = store.registries
        for each in (others.look(f"{HOST}/x:1"), store.pull(f"{HOST}/x:1")[1], others.tags(f"{HOST}/x")):
            try:
                await each
            except HyperError:
                pass
        return len(told) > 3, len(asked)

    found = [asyncio.run(look(None)), asyncio.run(look(lambda: fence.around("a registry")))]
    left = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    print(json.dumps([*found, left]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
@pytest.mark.skipif(not shutil.which("skopeo"), reason="there is no skopeo")
def test_a_registry_that_leads_to_the_loopback(tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", textwrap.dedent(SCRIPT), tmp_path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.stderr.startswith("skip: "):
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    (open_, reached), (asked, walled), left = json.loads(done.stdout)
    assert open_ and reached >= 2, "skopeo follows it"
    assert asked and walled == 0
    assert left == "", "the wall goes with the last of them"
