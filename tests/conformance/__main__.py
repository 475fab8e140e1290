# SPDX-License-Identifier: Apache-2.0
"""Run them against a daemon in a network namespace, and say what share of them passes.

A case that fails or is left out has a reason in docs/conformance.md; one without a reason fails the run.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.conftest import Daemon, launched
from tests.e2e.test_networks import namespaces
from tests.registry import serving

from . import apiv2
from .source import ALPINE, adapted, fetch, is_podmans

ROOT = Path(__file__).parents[2]
LEAST = 90  # per cent
SUITES = ("test/python/docker/compat", "test/apiv2/python/rest_api")
_LEFT_OUT = ("test_v2_0_0_pod", "test_v2_0_0_manifest", "v1_test_rest")  # pods and manifest lists: podman's own API
_PORT = 8080  # which the tests have in them
Results = dict[str, tuple[str, str]]  # case -> passed, failed or skipped; and why


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _accept(listener: socket.socket, path: Path) -> None:
    with contextlib.suppress(OSError):  # it was closed
        while True:
            client = listener.accept()[0]
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(path))
            for pair in ((client, server), (server, client)):
                threading.Thread(target=_carry, args=pair, daemon=True).start()


@contextlib.contextmanager
def _on_port(path: Path) -> Iterator[None]:
    """The daemon's socket on the port that the tests ask."""
    with socket.create_server(("127.0.0.1", _PORT)) as listener:
        threading.Thread(target=_accept, args=(listener, path), daemon=True).start()
        yield


def _stock(daemon: Daemon, registry: str) -> None:
    """What the tests pull: two images, which differ."""
    daemon.ctl("pull", "-q", "builtin:busybox")
    for name, label in (("alpine", "one"), ("busybox", "two")):
        layer = daemon.run / "layer.tar"
        daemon.ctl("create", "--name", "source", "busybox")
        daemon.ctl("export", "-o", layer, "source")
        daemon.ctl("rm", "source")
        (daemon.run / "etc").mkdir(exist_ok=True)
        (daemon.run / "etc/motd").write_text("what Alpine has there\n")
        subprocess.run(["tar", "--append", "-f", layer, "-C", daemon.run, "etc/motd"], check=True)
        full = f"{registry}/libpod/{name}:latest"
        daemon.docker("import", "-c", f"LABEL made={label}", "-c", 'CMD ["/bin/sh"]', layer, full)
        daemon.docker("push", "-q", full)
        daemon.docker("rmi", full)
    daemon.docker("rmi", "busybox")


def _stock_more(daemon: Daemon, registry: str) -> None:
    """What the assertions pull besides."""
    for name, change in (("alpine_labels:latest", "LABEL PODMAN=/usr/bin/podman"),
                         ("testimage:20200929", "WORKDIR /data"), ("registry:2.7", "EXPOSE 5000")):  # fmt: skip
        daemon.docker("pull", "-q", f"{registry}/libpod/alpine:latest")
        daemon.docker("create", "--name", "source", f"{registry}/libpod/alpine:latest")
        daemon.docker("commit", "-c", change, "source", f"{registry}/libpod/{name}")
        daemon.docker("push", "-q", f"{registry}/libpod/{name}")
        daemon.docker("rm", "source")
        daemon.docker("rmi", f"{registry}/libpod/{name}", f"{registry}/libpod/alpine:latest")


def _users(place: Path) -> str:
    """The part of a registry's configuration that lets in `user` only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import crypt  # goes with Python 3.13; what makes htpasswd files is not installed everywhere
    (place / "users").write_text("user:" + crypt.crypt("secret", crypt.mksalt(crypt.METHOD_BLOWFISH)) + "\n")
    return f"auth: {{htpasswd: {{realm: test, path: {place / 'users'}}}}}\n"


def inside(place: Path) -> int:
    """In the namespace: a registry in the place of quay.io, a daemon, the tests; the program's exit status."""
    source, packages = fetch()
    for name in ("registry", "closed", "apiv2"):
        (place / name).mkdir()
    with serving(place / "registry") as registry, serving(place / "closed", _users(place)) as closed:
        tests = adapted(source, place / "tests", registry.address)
        podman = place / "podman"
        shutil.copy(Path(__file__).with_name("podman.sh"), podman)
        podman.chmod(podman.stat().st_mode | stat.S_IXUSR)
        os.environ["CLOSED_REGISTRY"] = closed.address
        os.environ["ALPINE"] = ALPINE.replace("quay.io", registry.address)
        with launched(place / "root", "--network", "bridge", prefix=("env",)) as daemon:
            _stock(daemon, registry.address)
            with _on_port(daemon.run / "docker.sock"):
                results = {} if "--apiv2" in sys.argv else _run(tests, packages, podman, daemon)
                _stock_more(daemon, registry.address)
                assertions = apiv2.run(tests, podman, daemon, registry.address, _PORT, place / "apiv2")
    status = 0 if "--apiv2" in sys.argv else tell(results)
    return apiv2.tell(assertions) or status


def _run(tests: Path, packages: Path, podman: Path, daemon: Daemon) -> Results:
    environment = {**os.environ, "PYTHONPATH": str(packages), "PODMAN": str(podman),
                   "DOCKER_HOST": f"unix://{daemon.run}/docker.sock"}  # fmt: skip
    found: Results = {}
    for suite in SUITES:
        report = tests / "report.xml"
        left_out = [f"--ignore-glob=*{name}*" for name in _LEFT_OUT]
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-o", "timeout=120", "--rootdir", tests,
             "-p", "no:cacheprovider", f"--junitxml={report}", *left_out, *sys.argv[2:], suite],
            cwd=tests, env=environment, check=False,
        )  # fmt: skip
        found |= _read(report, tests)
    return found


def _read(report: Path, tests: Path) -> Results:
    found: Results = {}
    for case in ET.parse(report).getroot().iter("testcase"):
        module, _, group = case.attrib["classname"].rpartition(".")
        name = f"{module.rpartition('.')[2]}.{group}.{case.attrib['name']}"
        (path,) = tests.rglob(f"{module.rpartition('.')[2]}.py")
        problem = next(
            (case.find(kind) for kind in ("failure", "error", "skipped") if case.find(kind) is not None), None
        )
        if is_podmans(path, case.attrib["name"]):
            continue
        if problem is None:
            found[name] = ("passed", "")
        else:
            state = "skipped" if problem.tag == "skipped" else "failed"
            found[name] = (state, problem.attrib.get("message", "").splitlines()[0][:150])
    return found


def reasons() -> dict[str, tuple[str, str]]:
    """Case -> kind and reason, from the page."""
    text = (ROOT / "docs/conformance.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)` \| (\w+) \| (.+) \|$", text, re.M)
    return {case: (kind, why) for case, kind, why in rows}


def tell(found: Results) -> int:
    """Print what came out; the program's exit status."""
    known = reasons()
    outside = {case for case, (kind, _) in known.items() if kind != "ours" and case in found}
    passed = {case for case, (state, _) in found.items() if state == "passed"}
    counted = found.keys() - (outside - passed)
    share = 100 * len(passed) // max(1, len(counted))
    unknown = {c: why for c, (state, why) in found.items() if state != "passed" and c not in known}
    for case, (state, why) in sorted(found.items()):
        if state != "passed":
            print(f"{state:8} {case}: {known.get(case, ('', why))[1]}")
    for case in sorted(passed & known.keys()):
        print(f"passes by now, and has a reason why it would not: {case}")
    print(f"{len(passed)} of {len(counted)} pass: {share} %; {len(found) - len(counted)} are left out with a reason")
    for case, why in sorted(unknown.items()):
        print(f"no reason in docs/conformance.md: {case}: {why}")
    return 1 if unknown or share < LEAST or not found else 0


def main() -> int:
    if "--inside" in sys.argv:
        with tempfile.TemporaryDirectory(prefix="hyc") as place:
            return inside(Path(place))
    fetch()
    with namespaces("f") as name:
        command = ["ip", "netns", "exec", name, sys.executable, "-m", "tests.conformance", "--inside", *sys.argv[1:]]
        return subprocess.run(command, check=False, cwd=ROOT).returncode


sys.exit(main())
