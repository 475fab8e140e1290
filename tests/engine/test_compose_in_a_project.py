# SPDX-License-Identifier: Apache-2.0
"""What a compose file makes is the project's that is named: by hyperctl, and by the header of Docker's clients."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import hyperctl
from .stage import IMAGE
from .test_tenancy import cloud

FILE = f"services:\n  front: {{image: {IMAGE}, depends_on: [back]}}\n  back: {{image: {IMAGE}}}\n"


async def test_a_compose_file_becomes_a_pod_of_the_project(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with cloud(template) as c:
        for project in ("blue/web", "red/web"):
            await c.give_image(project)
        (file := c.s.stage.paths.root / "compose.yaml").write_text(FILE)
        monkeypatch.setenv("HYPER_HOST", str(c.s.path))

        async def ctl(*args: str) -> str:
            status, out, err = await hyperctl.call(*args)
            assert status == 0, err
            return out.decode()

        await ctl("--project", "blue/web", "run", "-d", "-p", str(file), "--pod", "shop")
        monkeypatch.setenv("HYPER_PROJECT", "red/web")
        await ctl("run", "-d", "-p", str(file), "--pod", "shop")
        for project, found in (("blue/web", ["shop"]), ("red/web", ["shop"]), ("blue/db", [])):
            got = await c.ask("GET", "/pods", project=project)
            assert [p["name"] for p in got.json] == found, project
            names = sorted(line for line in (await ctl("--project", project, "ps", "-q")).splitlines())
            assert len(names) == 2 * len(found)
        assert (await c.ask("GET", "/pods")).json == []
        await ctl("pod", "rm", "-f", "shop")
        await ctl("--project", "blue/web", "pod", "rm", "-f", "shop")


async def test_dockers_clients_name_the_project_by_a_header(template: Path) -> None:
    async with cloud(template) as c:
        await c.give_image("blue/web")
        body = {"Image": IMAGE, "Cmd": ["true"], "Labels": {"com.docker.compose.project": "shop"}}
        made = await c.s.ask("POST", "/containers/create?name=shop-front-1", body, docker=True,
                             headers={"Hyper-Project": "blue/web", "Content-Type": "application/json"})  # fmt: skip
        assert made.status == 201, made.body
        for project, count in (("blue/web", 1), ("blue/db", 0), ("red/web", 0)):
            got = await c.s.ask("GET", "/containers/json?all=1", docker=True, headers={"Hyper-Project": project})
            assert len(got.json) == count, project
