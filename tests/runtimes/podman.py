# SPDX-License-Identifier: Apache-2.0
"""podman with a runtime, in a network namespace and with directories of its own."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hypercontainer.images import builtin
from tests.beside.steps import Side
from tests.e2e.conftest import BIN, launched
from tests.e2e.test_networks import namespaces_again

_LIMITS = '[containers]\ndefault_ulimits = ["nofile={0}:{0}", "nproc={1}:{1}"]\n'
_DEADLINE = 180.0  # seconds to begin, and to leave nothing


@dataclass(frozen=True)
class Podman(Side):
    """Commands that call podman call it so."""

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PATH": f"{self.place}/bin:{os.environ['PATH']}", "TERM": "dumb",
                "CONTAINERS_CONF": f"{self.place}/containers.conf", "NO_COLOR": "1"}  # fmt: skip


def _network(place: Path) -> str:
    """podman's default one, whose addresses are kept in a directory of its own."""
    ipam = {"type": "host-local", "dataDir": f"{place}/addresses", "routes": [{"dst": "0.0.0.0/0"}],
            "ranges": [[{"subnet": "10.88.0.0/16", "gateway": "10.88.0.1"}]]}  # fmt: skip
    bridge = {"type": "bridge", "bridge": "cni-podman0", "isGateway": True, "ipMasq": True, "hairpinMode": True,
              "ipam": ipam}  # fmt: skip
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": "podman", "plugins": [bridge, ports]})


def _script(path: Path, command: list[str | Path]) -> None:
    path.write_text("#!/bin/sh\nexec " + " ".join(map(str, command)) + ' "$@"\n')
    path.chmod(0o755)


@contextlib.contextmanager
def podman(place: Path, namespace: str, runtime: str, options: list[str | Path]) -> Iterator[Podman]:
    """One with the image `box`; `options` are the runtime's. At the end nothing of its is left."""
    for name in ("bin", "cni", "shared"):
        (place / name).mkdir()
    (place / "shared/given").write_text("given\n")
    (place / "cni/podman.conflist").write_text(_network(place))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1], resource.getrlimit(resource.RLIMIT_NPROC)[1]
    (place / "containers.conf").write_text(_LIMITS.format(*(min(n, 1024) if n > 0 else 1024 for n in hard)))
    _script(place / "bin/runtime", [runtime, *options])
    directories = [word for name in ("root", "runroot", "tmpdir") for word in (f"--{name}", place / name)]
    _script(place / "bin/podman", [
        "nsenter", f"--net=/run/netns/{namespace}", "/usr/bin/podman", *directories, "--storage-driver", "overlay",
        "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--network-config-dir", place / "cni",
        "--runtime", place / "bin/runtime",
    ])  # fmt: skip
    side = Podman(Path("/nowhere"), place)
    (place / "box.tar").write_bytes(builtin._layer(builtin._find_busybox()))
    try:
        status, said = side.run("podman import -q box.tar localhost/box && podman tag localhost/box box")
        assert status == 0, said
        yield side
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            side.run("podman pod rm -fa -t 0; podman rm -fa -t 0; podman volume prune -f; podman rmi -fa")
        subprocess.run(f"umount -l {place}/root/overlay {place}/runroot/*/* 2>/dev/null", shell=True, check=False)


@contextlib.contextmanager
def both() -> Iterator[tuple[Podman, Podman]]:
    """One with runc, and one with hyper-runtime and a hyperd for it, each in a network namespace of its own."""
    with contextlib.ExitStack() as stack:
        places = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oci"))) for _ in range(3)]
        names = [stack.enter_context(namespaces_again(tag)) for tag in ("r", "h")]
        prefix = ("nsenter", f"--net=/run/netns/{names[1]}")
        daemon = stack.enter_context(launched(places[2] / "d", "--network", "user", prefix=prefix))
        options: list[str | Path] = ["--root", places[2] / "state", "--hyper-host", daemon.socket]
        theirs = stack.enter_context(podman(places[0], names[0], "/usr/sbin/runc", ["--root", places[0] / "state"]))
        ours = stack.enter_context(podman(places[1], names[1], str(BIN / "hyper-runtime"), options))
        yield theirs, ours
