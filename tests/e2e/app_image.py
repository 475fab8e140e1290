# SPDX-License-Identifier: Apache-2.0
"""A small application server: Python and psycopg2, counting visits in postgres."""

from __future__ import annotations

import hashlib
from pathlib import Path

from . import images

_SERVER = """
import http.server, os, psycopg2

def connect():
    return psycopg2.connect(host="127.0.0.1", user="postgres", password=open("/run/secrets/db").read().strip())

with connect() as db, db.cursor() as c:
    c.execute("CREATE TABLE IF NOT EXISTS visits (n serial, at timestamptz DEFAULT now())")

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with connect() as db, db.cursor() as c:
            if self.path != "/healthz":
                c.execute("INSERT INTO visits DEFAULT VALUES")
            c.execute("SELECT count(*) FROM visits")
            body = b"visit %d\\n" % c.fetchone()[0]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""


def app() -> Path:
    """The OCI layout, made once."""

    def make(layout: Path, scratch: Path) -> None:
        images._base(layout, scratch, "python3-minimal,python3-psycopg2")
        server = scratch / "server.py"
        server.write_text(_SERVER)
        images._insert(layout, server, "/app/server.py")
        config = ["--config.cmd", "python3", "--config.cmd", "-u", "--config.cmd", "/app/server.py"]
        images.run("umoci", "config", "--image", f"{layout}:test", *config)

    return images.cached(f"app-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]}", make)
