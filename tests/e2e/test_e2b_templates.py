# SPDX-License-Identifier: Apache-2.0
"""Templates that E2B's own package builds, unmodified, in virtual machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import e2b
import pytest

from .conftest import Daemon
from .test_e2b import client as client


def names(hyper: Daemon) -> set[str]:
    """Of images, each with its id."""
    return set(hyper.out("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines())


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "src/sub").mkdir(parents=True)
    (tmp_path / "src/a").write_text("A\n")
    (tmp_path / "src/sub/b").write_text("B\n")
    (tmp_path / "src/link").symlink_to("a")
    (tmp_path / "tool.sh").write_text("#!/bin/sh\necho tool\n")
    return tmp_path


async def test_a_build(hyper: Daemon, client: dict[str, Any], context: Path) -> None:
    before = names(hyper)
    recipe = e2b.AsyncTemplate(file_context_path=context).from_image("busybox").copy("src", "/srv").set_user("web")
    await e2b.AsyncTemplate.build(recipe.run_cmd("id -un >/home/web/me"), "short", **client)
    try:
        async with await e2b.AsyncSandbox.create("short", **client) as sandbox:
            done = await sandbox.commands.run("cat /srv/link /srv/sub/b /home/web/me; stat -c %U /srv/a /home/web/me")
            assert done.stdout == "A\nB\nweb\nroot\nweb\n"
    finally:
        await e2b.AsyncTemplate.remove_tags("short", "default", **client)
    assert names(hyper) == before and hyper.sandboxes() == []


@pytest.mark.slow
def test_a_template_that_serves(hyper: Daemon, client: dict[str, Any], context: Path) -> None:
    before, told = names(hyper), list[str]()
    recipe = (
        e2b.Template(file_context_path=context).from_image("busybox")
        .set_envs({"NAME": "world", "GREETING": "hello $NAME"}).copy("*.sh", "/opt/bin/", mode=0o755, user="root")
        .set_user("web").set_workdir("/home/web/site").run_cmd("echo $GREETING >index.html && /opt/bin/tool.sh")
        .set_start_cmd("exec httpd -f -p 8000", "wget -q -O - http://127.0.0.1:8000/ | grep $NAME")
    )  # fmt: skip
    e2b.Template.build(
        recipe, "site:v1", tags=["new"], cpu_count=1, memory_mb=128, on_build_logs=lambda e: told.append(e.message),
        **client,
    )  # fmt: skip
    assert "tool" in told and {t.tag for t in e2b.Template.get_tags("site", **client)} == {"v1", "new"}
    with e2b.Sandbox.create("site:new", **client) as sandbox:
        done = sandbox.commands.run("wget -q -O - http://127.0.0.1:8000/; pwd; id -un; echo ${NAME:-none}")
        assert done.stdout == "hello world\n/home/web/site\nweb\nnone\n"
        assert (sandbox.get_info().cpu_count, sandbox.get_info().memory_mb) == (1, 128)
        assert sandbox.pause()
        again = e2b.Sandbox.connect(sandbox.sandbox_id, **client)
        assert again.commands.run("wget -q -O - http://127.0.0.1:8000/").stdout == "hello world\n"
    broken = e2b.Template().from_template("site:v1").run_cmd("echo reason >&2; exit 7")
    with pytest.raises(e2b.BuildException, match="exit code 7(?s:.*)reason"):
        e2b.Template.build(broken, "site:v1", **client)
    below = e2b.Template().from_template("site:v1").run_cmd("echo other world >index.html")
    e2b.Template.build(below, "other", **client)
    with e2b.Sandbox.create("other", **client) as sandbox:
        assert sandbox.commands.run("wget -q -O - http://127.0.0.1:8000/").stdout == "other world\n"
    e2b.Template.remove_tags("site", ["v1", "new"], **client)
    e2b.Template.remove_tags("other", "default", **client)
    assert names(hyper) == before and hyper.sandboxes() == []
