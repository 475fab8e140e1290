# SPDX-License-Identifier: Apache-2.0
"""States that earlier hyperds left behind while a pod of theirs ran: one file here for each schema of the database.

`python -m tests.upgrades REVISION` makes them: it runs the hyperd of a revision of this repository, kills it in the
midst of what `scenario` begins, and keeps its database, the pod's run directory and the descriptions, with names for
what another machine has of its own. With them a test puts a machine of today's into that state. Before a step is added
to `state/migrations.py` keep the state of the schema that was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Daemon, wait_for

HERE = Path(__file__).parent
SCRIPT = "i=0; while ! test -e /go; do echo line $i; i=$((i+1)); sleep 0.1; done; exit 8"
_NAMED = ("x", "old")  # containers, each of its own pod
_NEVER = ("make-", "template-", "pool-", "warm-")  # machines of the factory, which end with their hyperd
_OF_A_MACHINE = {"pid", "pidStarted", "directory", "token", "user", "allotment", "accelerator", "processes", "built",
                 "disks", "volumes", "handle"}  # fmt: skip
State = dict[str, Any]


def scenario(daemon: Daemon) -> None:
    """A pod that runs, with a volume; one that has ended; a network."""
    daemon.ctl("pull", "-q", "builtin:busybox")
    daemon.ctl("network", "create", "--subnet", "10.231.7.0/24", "backend")
    daemon.ctl("run", "--name", "old", "busybox", "sh", "-c", "echo of before; exit 3", check=False)
    daemon.ctl(
        "run", "-d", "--name", "x", "-v", "data:/data", "--restart", "on-failure:3", "busybox", "sh", "-c", SCRIPT
    )
    wait_for(lambda: "line 2" in daemon.out("logs", "x"), "output")


def _ids(database: Path) -> dict[str, str]:
    with contextlib.closing(sqlite3.connect(database)) as db:
        found = dict(db.execute("SELECT name, id FROM containers").fetchall())
    return {name: found[name] for name in _NAMED}


def _names(root: Path, run: Path) -> list[tuple[str, str]]:
    """What a state has of its own, and the name for it; longer ones first."""
    pairs = [(str(root), "@ROOT"), (str(run), "@RUN")]
    for name, id_ in _ids(root / "state.db").items():
        pairs += [(id_, f"@{name}-ID"), (id_[:12], f"@{name}-SHORT")]
    return pairs


def keep(root: Path, run: Path, revision: str) -> State:
    """The state of a hyperd that was killed."""
    tables = {}
    with contextlib.closing(sqlite3.connect(root / "state.db")) as db:
        schema = db.execute("PRAGMA user_version").fetchone()[0]
        for name, sql in db.execute("SELECT name, sql FROM sqlite_master WHERE type='table'").fetchall():
            rows = [[_readable(v) for v in row] for row in db.execute(f"SELECT * FROM {name}")]
            tables[name] = {"sql": sql, "rows": [row for row in rows if not _of_the_factory(row)]}
    ids = _ids(root / "state.db")
    machine = run / "pods" / ids["x"][:12]
    kept = {p.name: p.read_text() for p in sorted(machine.iterdir()) if p.is_file()}
    descriptions = {n: json.loads(t.partition("\n")[2]) for n, t in kept.items() if n == "description"}
    files = {n: t for n, t in kept.items() if n not in descriptions}
    volume = root / "volumes/data/description"
    described = json.loads(volume.read_text().partition("\n")[2]) if volume.exists() else None
    state = {"revision": revision, "schema": schema, "tables": tables, "run": files, "description": descriptions,
             "volume": described}  # fmt: skip
    text = json.dumps(state)
    for own, name in _names(root, run):
        text = text.replace(own, name)
    found: State = json.loads(text)
    return found


def _readable(value: object) -> object:
    """A document as what it says."""
    return {"document": json.loads(value)} if isinstance(value, bytes) else value


def _of_the_factory(row: list[object]) -> bool:
    return any(isinstance(v, str) and v.startswith(_NEVER) for v in row)


def kept() -> list[Path]:
    """One for each schema, the earliest first."""
    return sorted(HERE.glob("schema-*.json"))


def put(state: State, root: Path, run: Path) -> None:
    """Have a killed hyperd's files of today be as that one's: the same machine, in its records and with its files."""
    today, text = _machine(root), json.dumps(state)
    for own, name in _names(root, run):
        text = text.replace(name, own)
    then: State = json.loads(text)
    machine = run / "pods" / _ids(root / "state.db")["x"][:12]
    for row in (*then["tables"]["containers"]["rows"], *then["tables"]["pods"]["rows"]):
        _give(row[-1]["document"], today)
    for path in machine.iterdir():
        if path.is_file() and path.name not in then["run"]:
            path.unlink()
    for document in then["description"].values():
        for record in (document["pod"], *document["containers"]):
            _give(record, today)
        describe(machine, document)
    (root / "volumes/data/description").unlink(missing_ok=True)
    if then["volume"]:
        describe(root / "volumes/data", then["volume"])
    for old in root.glob("state.db*"):
        old.unlink()
    write_database(then, root / "state.db")


def _machine(root: Path) -> dict[str, Any]:
    """What today's hyperd knows of the pod's machine: its process, its disks, its token; and of the image."""
    with contextlib.closing(sqlite3.connect(root / "state.db")) as db:
        [pod], [container] = (
            db.execute(f"SELECT document FROM {table} WHERE name = 'x'").fetchone() for table in ("pods", "containers")
        )
    vm = json.loads(pod)["vm"]
    return {"vm": {**vm, **vm["handle"]}, "imageId": json.loads(container)["imageId"]}


def _give(document: dict[str, Any], today: dict[str, Any]) -> None:
    """The values of a machine that runs for those of one that does not any more."""
    if "imageId" in document:
        document["imageId"] = today["imageId"]
    if vm := document.get("vm"):
        vm |= {key: today["vm"][key] for key, value in vm.items() if value and key in _OF_A_MACHINE & set(today["vm"])}


def describe(directory: Path, document: dict[str, Any]) -> None:
    """As `state/description.py` says what such a file is."""
    body = json.dumps(document).encode()
    (directory / "description").write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def write_database(then: State, path: Path) -> None:
    """As the earlier hyperd left it."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        for name, table in then["tables"].items():
            db.execute(table["sql"])
            for row in table["rows"]:
                values = [json.dumps(v["document"]).encode() if isinstance(v, dict) else v for v in row]
                db.execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(values))})", values)
        db.execute(f"PRAGMA user_version={then['schema']}")
