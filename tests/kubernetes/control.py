# SPDX-License-Identifier: Apache-2.0
"""What a cluster is governed by: etcd, kube-apiserver, the controllers and the scheduler, in a network namespace."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.certificates import Authority
from tests.e2e.conftest import wait_for

from .components import Components
from .processes import Program, ip, namespace, running

ADDRESS, BITS, PORT = "192.168.77.1", 24, 6443
_ETCD = "http://127.0.0.1:2379"
_TOKEN = "of-the-test"
_STARTED = 180.0  # seconds
COMMAND = 300.0  # seconds that a command may take

_KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{{name: test, cluster: {{server: 'https://{address}:{port}', certificate-authority: {authority}}}}}]
users: [{{name: admin, user: {{token: {token}}}}}]
contexts: [{{name: test, context: {{cluster: test, user: admin}}}}]
current-context: test
"""


class Control:
    """It answers."""

    def __init__(self, name: str, place: Path, programs: Components) -> None:
        self.name, self.place, self.programs = name, place, programs
        self.kubeconfig = place / "kubeconfig"
        self.authority = Authority(place / "ca")  # of hyperds' certificates

    def command(self, *words: str | Path) -> list[str | Path]:
        """kubectl's, in the namespace."""
        inside = ("ip", "netns", "exec", self.name)
        return [*inside, self.programs.kubectl, "--kubeconfig", self.kubeconfig, *words]

    def kubectl(self, *words: str | Path, input: str = "", check: bool = True) -> str:
        """What it prints; with `check` it must succeed."""
        done = self.tried(*words, input=input)
        assert not check or not done.returncode, (words, done.stdout, done.stderr)
        return done.stdout

    def tried(self, *words: str | Path, input: str = "") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HOME": str(self.place)}
        return subprocess.run(
            self.command(*words), input=input, capture_output=True, text=True, timeout=COMMAND, check=False,
            env=environment,
        )  # fmt: skip

    def link(self, node: str, number: int) -> str:
        """Join a node's namespace to this one; the node's address."""
        address = f"192.168.77.{10 + number}"
        ip("-n", self.name, "link", "add", f"n{number}", "type", "veth", "peer", "name", "eth0", "netns", node)
        ip("-n", self.name, "link", "set", f"n{number}", "master", "br0", "up")
        ip("-n", node, "addr", "add", f"{address}/{BITS}", "dev", "eth0")
        ip("-n", node, "link", "set", "eth0", "up")
        ip("-n", node, "route", "add", "default", "via", ADDRESS)
        return address


@contextlib.contextmanager
def control(place: Path, programs: Components) -> Iterator[Control]:
    """Started; it has no node yet."""
    with contextlib.ExitStack() as stack:
        found = Control(stack.enter_context(namespace(f"hk-control-{os.getpid()}")), place, programs)
        ip("-n", found.name, "link", "add", "br0", "type", "bridge")
        ip("-n", found.name, "addr", "add", f"{ADDRESS}/{BITS}", "dev", "br0")
        ip("-n", found.name, "link", "set", "br0", "up")
        authority = place / "certificates/apiserver.crt"  # which signs itself
        text = _KUBECONFIG.format(address=ADDRESS, port=PORT, authority=authority, token=_TOKEN)
        found.kubeconfig.write_text(text)
        (place / "tokens").write_text(f"{_TOKEN},admin,admin,system:masters\n")
        _write_key(place / "accounts.pem")
        started = []
        for name, words in _programs(place).items():
            command = ("ip", "netns", "exec", found.name, programs.place / name, *words)
            started.append(stack.enter_context(running(name, place / f"{name}.log", command)))
            if name == "kube-apiserver":
                wait_for(lambda: _ready(found, started), "kube-apiserver's answer", _STARTED)
        yield found


def _ready(found: Control, started: list[Program]) -> bool:
    assert all(p.runs for p in started), "\n".join(p.words() for p in started if not p.runs)
    return found.tried("get", "--raw", "/readyz").stdout == "ok"


def _write_key(path: Path) -> None:
    """With which tokens of service accounts are signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.TraditionalOpenSSL
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))


def _programs(place: Path) -> dict[str, list[str]]:
    """In the order of their start."""
    key, as_admin = place / "accounts.pem", ["--kubeconfig", str(place / "kubeconfig"), "--leader-elect=false"]
    return {
        "etcd": [
            "--data-dir", str(place / "etcd"), "--listen-client-urls", _ETCD, "--advertise-client-urls", _ETCD,
            "--listen-peer-urls", "http://127.0.0.1:2380", "--unsafe-no-fsync",
        ],
        "kube-apiserver": [
            f"--etcd-servers={_ETCD}", f"--secure-port={PORT}", f"--bind-address={ADDRESS}",
            f"--advertise-address={ADDRESS}", f"--cert-dir={place / 'certificates'}", "--allow-privileged",
            f"--token-auth-file={place / 'tokens'}", "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://kubernetes.test",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
            "--kubelet-preferred-address-types=InternalIP",
        ],
        "kube-controller-manager": [
            *as_admin, f"--service-account-private-key-file={key}",
            f"--root-ca-file={place}/certificates/apiserver.crt",
            "--node-monitor-grace-period=60s", "--pod-eviction-timeout=600s",
        ],
        "kube-scheduler": [*as_admin],
    }  # fmt: skip
