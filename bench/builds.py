# SPDX-License-Identifier: Apache-2.0
"""A build in which nothing has changed, beside the same dockerd outside of any virtual machine."""

from __future__ import annotations

import os
from pathlib import Path

from tests.builds.outside import docker, dockerd
from tests.e2e.test_build import buildx

from .measure import Figure, alternating
from .peers import Hyper

_DOCKERFILE = "FROM busybox\nCOPY text /text\nRUN echo one >/one\n"


def measure(hyper: Hyper, directory: Path, runs: int) -> list[Figure]:
    """The builder runs already, and both have the image from an earlier build."""
    context = directory / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(_DOCKERFILE)
    (context / "text").write_text("text\n")
    plugins = directory / "docker/cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-buildx").symlink_to(buildx(directory))
    os.environ["DOCKER_CONFIG"] = str(plugins.parent)
    with dockerd(directory) as host:
        base = directory / "busybox.tar"
        hyper.ctl("save", "-o", str(base), "busybox")
        docker(host, "load", "-i", base)
        ours = ("build", "-q", "-t", "bench", str(context))
        theirs = ("buildx", "build", "-q", "--provenance=false", "-t", "bench", context)
        hyper.ctl(*ours)
        docker(host, *theirs)
        here, outside = alternating(lambda: hyper.ctl(*ours), lambda: docker(host, *theirs), runs)
    hyper.ctl("builder", "stop")
    return [Figure("build with nothing changed (the same dockerd outside)", here, "s", outside, None)]
