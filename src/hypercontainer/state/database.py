# SPDX-License-Identifier: Apache-2.0
"""Containers, pods and volumes as JSON documents in SQLite.

WAL with `synchronous=NORMAL`: a crash of the daemon loses nothing, a crash of
the host at most the last moments, and no commit waits for the disk.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import msgspec

from ..errors import NoSpace, Unavailable
from ..model.base import Model, encode
from ..model.network import Network
from ..model.status import Container, Pod, Volume

_SCHEMA_VERSION = 3
_VOLUMES = "CREATE TABLE volumes (id TEXT PRIMARY KEY, name TEXT UNIQUE NOT NULL, document BLOB NOT NULL);"
_NETWORKS = "CREATE TABLE networks (id TEXT PRIMARY KEY, name TEXT UNIQUE NOT NULL, document BLOB NOT NULL);"
_SCHEMA = f"""
CREATE TABLE containers (id TEXT PRIMARY KEY, name TEXT UNIQUE NOT NULL, document BLOB NOT NULL);
CREATE TABLE pods (id TEXT PRIMARY KEY, name TEXT UNIQUE NOT NULL, document BLOB NOT NULL);
{_VOLUMES}
{_NETWORKS}
"""
# Version 1 knew only pods of one container, which are implicit.
_FROM_1 = f"""
{_VOLUMES}
UPDATE pods SET document = CAST(json_set(CAST(document AS TEXT), '$.implicit', json('true')) AS BLOB);
"""


class Database:
    """Opened once, by the daemon."""

    def __init__(self, path: Path) -> None:
        """:raise Unavailable: when the file is from a newer version or damaged."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite's other files get the mode of this one
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={_SCHEMA_VERSION}; COMMIT;")
            elif version < _SCHEMA_VERSION:
                steps = (_FROM_1 if version == 1 else "") + _NETWORKS
                self._db.executescript(f"BEGIN; {steps} PRAGMA user_version={_SCHEMA_VERSION}; COMMIT;")
        except sqlite3.DatabaseError as error:
            raise Unavailable(f"cannot open the state database {path}: {error}",
                              hint="move it away to start with an empty state") from error  # fmt: skip
        if version > _SCHEMA_VERSION:
            raise Unavailable(f"{path} was written by a newer hyperd (schema {version})", hint="upgrade hyperd")

    def close(self) -> None:
        self._db.close()

    def containers(self) -> list[Container]:
        return [msgspec.json.decode(row[0], type=Container) for row in self._db.execute("SELECT document FROM containers")]

    def pods(self) -> list[Pod]:
        return [msgspec.json.decode(row[0], type=Pod) for row in self._db.execute("SELECT document FROM pods")]

    def volumes(self) -> list[Volume]:
        return [msgspec.json.decode(row[0], type=Volume) for row in self._db.execute("SELECT document FROM volumes")]

    def put_volume(self, volume: Volume) -> None:
        self._put("volumes", volume.name, volume.name, volume)

    def remove_volume(self, name: str) -> None:
        self._db.execute("DELETE FROM volumes WHERE id=?", (name,))

    def networks(self) -> list[Network]:
        return [msgspec.json.decode(row[0], type=Network) for row in self._db.execute("SELECT document FROM networks")]

    def put_network(self, network: Network) -> None:
        self._put("networks", network.id, network.name, network)

    def remove_network(self, id_: str) -> None:
        self._db.execute("DELETE FROM networks WHERE id=?", (id_,))

    def put_container(self, container: Container) -> None:
        """Insert or replace; idempotent.

        :raise NoSpace: when the disk is full. :raise InvalidArgument: a value that could not be read back, by its field.
        """
        self._put("containers", container.id, container.name, container)

    def put_pod(self, pod: Pod) -> None:
        self._put("pods", pod.id, pod.name, pod)

    def remove_container(self, id_: str) -> None:
        self._db.execute("DELETE FROM containers WHERE id=?", (id_,))

    def remove_pod(self, id_: str) -> None:
        self._db.execute("DELETE FROM pods WHERE id=?", (id_,))

    def _put(self, table: str, id_: str, name: str, record: Model) -> None:
        document = encode(record)  # nothing is stored that cannot be read again
        try:
            self._db.execute(
                f"INSERT INTO {table} VALUES (?, ?, ?) ON CONFLICT(id) DO UPDATE SET name=excluded.name, document=excluded.document",
                (id_, name, document),
            )
        except sqlite3.OperationalError as error:
            if "full" in str(error):
                raise NoSpace("no space left on the disk of the state database", hint="free some and try again") from error
            raise
