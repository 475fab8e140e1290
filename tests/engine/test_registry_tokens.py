# SPDX-License-Identifier: Apache-2.0
"""Identity tokens: a registry whose server of tokens gives others for them."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from hypercontainer.model.registry_auth import registry_auth
from tests.registry import serving
from tests.token_server import IDENTITY, TokenServer, serving_tokens

from . import cri_client
from .served import served
from .test_docker_things import ask
from .test_image_verbs import ctl


def login_file(directory: Path, host: str, token: str) -> None:
    """As docker login writes it."""
    directory.mkdir(exist_ok=True)
    entry = {"auth": base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode(), "identitytoken": token}
    (directory / "config.json").write_text(json.dumps({"auths": {host: entry}}))


async def test_an_identity_token(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the login file, by Docker's API and by CRI: for pushes and pulls."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "login"))
    async with serving_tokens(tmp_path / "tokens") as tokens:
        with serving(tmp_path, tokens.configuration) as registry:
            name = f"{registry.address}/team/app:1"
            await pushes(template, tmp_path, tokens, name)
            await pulls(template, name)


async def pushes(template: Path, tmp_path: Path, tokens: TokenServer, name: str) -> None:
    """By the login file; Docker's API asks with a header of its own."""
    address = name.partition("/")[0]
    async with served(template, own_images=True) as s:
        await s.stage.engine.images.pull("builtin:busybox")[1]
        await ctl(s, "tag", "busybox", name)
        assert "refused the credentials" in await ctl(s, "push", name, status=1)
        login_file(tmp_path / "login", address, "another")
        assert "refused the credentials" in await ctl(s, "push", name, status=1)
        login_file(tmp_path / "login", address, IDENTITY)
        assert await ctl(s, "push", "-q", name) == f"{name}\n"
        assert tokens.asked[-1]["scope"] == "repository:team/app:pull,push"
        header = {"X-Registry-Auth": registry_auth("me", "", identity_token=IDENTITY)}
        told = await ask(s, "GET", f"/distribution/{name}/json", headers=header)
        assert told["Descriptor"]["digest"].startswith("sha256:")
        await ask(s, "GET", f"/distribution/{name}/json", status=401)


async def pulls(template: Path, name: str) -> None:
    async with cri_client.served(template, own_images=True) as (stage, client):
        assert (await cri_client.refused(client.PullImage(image={"image": name})))[0] == "UNAUTHENTICATED"
        for kind, code in (("identity_token", "UNAUTHENTICATED"), ("registry_token", "UNIMPLEMENTED")):
            assert (await cri_client.refused(client.PullImage(image={"image": name}, auth={kind: "x"})))[0] == code
        pulled = await client.PullImage(image={"image": name}, auth={"identity_token": IDENTITY})
        assert stage.engine.images.find(name).id == pulled.image_ref
