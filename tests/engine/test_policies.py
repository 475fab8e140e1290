# SPDX-License-Identifier: Apache-2.0
"""A project's policy: what it refuses is refused with its name, before anything is made."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.engine.principal import asked_by
from hypercontainer.errors import PermissionDenied
from hypercontainer.images.trust import Trust
from hypercontainer.model.cron import CronRequest
from hypercontainer.model.deployments import DeploymentRequest
from hypercontainer.model.policy import Policy
from hypercontainer.model.principal import Principal
from hypercontainer.model.snapshots import ForkRequest, RestoreRequest, SnapshotRequest
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.model.tenancy import OrganisationRequest, ProjectRequest

from .stage import IMAGE, Stage
from .test_tenancy import cloud

BOX: dict[str, Any] = {"image": IMAGE, "name": "a"}
REFUSED: list[tuple[dict[str, Any], str, dict[str, Any], str]] = [
    ({"images": ["example.org/team/*"]}, "/images/pull?name=busybox", {}, "images: example.org/team/*"),
    ({"images": []}, "/images/pull?name=registry.example.org/team/app", {}, "images: none"),
    ({"builds": False}, "/images/import?name=x", {}, "builds"),
    ({"builds": False}, "/build", {}, "builds"),
    ({"privileged": False}, "/containers", BOX | {"privileged": True}, "privileged"),
    ({"capabilities": ["NET_ADMIN"]}, "/containers", BOX | {"capAdd": ["CAP_SYS_ADMIN"]}, "capabilities: NET_ADMIN"),
    ({"capabilities": []}, "/containers", BOX | {"capAdd": ["ALL"]}, "capabilities: none"),
    ({"capabilities": ["NET_ADMIN"]}, "/containers", BOX | {"privileged": True}, "capabilities: NET_ADMIN"),
    ({"drivers": ["firecracker"]}, "/containers", BOX, "drivers: firecracker"),
    ({"isolation": "fresh"}, "/containers", BOX, "isolation: fresh"),
    ({"isolation": "fresh"}, "/pods", {"id": "p", "containers": [BOX]}, "isolation: fresh"),
    ({"privileged": False}, "/pods", {"id": "p", "containers": [BOX | {"privileged": True}]}, "privileged"),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "path", "body", "names"), REFUSED, ids=lambda x: str(x)[:50])
async def test_what_a_policy_refuses(
    template: Path, policy: dict[str, Any], path: str, body: dict[str, Any], names: str
) -> None:
    async with cloud(template) as c:
        await c.give_image("db")
        token = await c.token("db", "operate")
        assert (await c.ask("PUT", "/projects/db/policy", policy, token=token)).status == 403
        told = await c.ask("PUT", "/projects/db/policy", policy)
        assert told.status == 200 and policy.items() <= told.json["policy"].items()
        got = await c.ask("POST", path, body, token=token)
        text = got.body.decode()
        assert got.status == 403 or '"code":"permission_denied"' in text, text
        assert f"the project's policy ({names}) does not allow" in text
        assert (await c.ask("GET", "/containers?all=1", token=token)).json == []


async def test_what_a_policy_allows_and_whom_it_concerns(template: Path) -> None:
    async with cloud(template, own_images=True) as c:
        strict = {"images": ["docker.io/library/*"], "capabilities": ["CAP_NET_ADMIN"], "privileged": False,
                  "drivers": ["fake"], "isolation": "fresh", "builds": False}  # fmt: skip
        driver = c.s.stage.engine.drivers.default.name
        assert (await c.ask("PUT", "/projects/db/policy", strict | {"drivers": [driver]})).status == 200
        for project in ("db", "blue/web"):
            await c.give_image(project)
        good = BOX | {"capAdd": ["net_admin"], "isolation": "fresh"}
        assert (await c.ask("POST", "/containers", good, project="db")).status == 201
        assert (await c.ask("POST", "/images/pull?name=builtin:busybox", project="db")).status == 200
        for project in ("blue/web", ""):  # it is another's
            made = await c.ask("POST", "/containers", BOX | {"privileged": True}, project=project)
            assert made.status == 201, made.body
        assert (await c.ask("PUT", "/projects/db/policy", {"builds": True})).status == 200
        assert (await c.ask("POST", "/containers", BOX | {"name": "b"}, project="db")).status == 201
        bad = await c.ask("PUT", "/projects/db/policy", {"isolation": "none"})
        assert bad.status == 400 and "isolation" in bad.json["message"]


async def test_files_of_the_host_may_be_nobodys(template: Path, tmp_path: Path) -> None:
    """Members have none anyway; the host's administrator has them where the project's policy does."""
    bind = BOX | {"mounts": [{"type": "bind", "source": str(tmp_path), "target": "/d"}]}
    pod = {"id": "p", "containers": [BOX], "volumes": [{"name": "v", "source": str(tmp_path)}]}
    async with cloud(template) as c:
        await c.give_image("db")
        token = await c.token("db", "operate")
        assert "takes the scope `host`" in (await c.ask("POST", "/containers", bind, token=token)).json["message"]
        assert (await c.ask("PUT", "/projects/db/policy", {"hostPaths": False})).status == 200
        for path, body in (("/containers", bind), ("/containers", BOX | {"log": {"path": "/x"}}), ("/pods", pod)):
            got = await c.ask("POST", path, body, project="db")
            assert got.status == 403 and "the project's policy (hostPaths) does not allow" in got.json["message"]
        for place in ("docker-archive", "oci-archive", "oci"):
            got = await c.ask("POST", f"/images/pull?name={place}:{tmp_path}/x", project="db")
            assert got.status == 403 and "the project's policy (hostPaths) does not allow" in got.json["message"]
            assert got.json["message"].endswith("which is on this host")
        assert (await c.ask("POST", "/containers", BOX, project="db")).status == 201


async def test_whose_images_are_taken_is_of_the_configuration(template: Path) -> None:
    trusts = {"strict": Trust("/strict.json")}
    async with cloud(template, own_images=True, trusts=trusts) as c:
        unknown = await c.ask("PUT", "/projects/db/policy", {"signatures": "other"})
        assert unknown.status == 400 and "no 'other' in `image_policies`" in unknown.json["message"]
        assert (await c.ask("PUT", "/projects/db/policy", {"signatures": "strict"})).status == 200
        trusts.clear()
        got = await c.ask("POST", "/images/import?name=x", project="db")
        assert b"hyperd's configuration has none of this name" in got.body, got.body
        assert (await c.ask("POST", "/images/pull?name=builtin:busybox", project="blue/web")).status == 200


async def test_what_is_built_without_a_signature_is_refused_before(template: Path, tmp_path: Path) -> None:
    """The builder fetches what a build begins with past the policy; so there is no build whose image is refused."""
    refuses: dict[str, Any] = {"default": [{"type": "reject"}]}
    takes = refuses | {"transports": {"docker-archive": {"": [{"type": "insecureAcceptAnything"}]}}}
    for name, policy in (("strict", refuses), ("own", takes)):
        (tmp_path / name).write_text(json.dumps(policy))
    trusts = {name: Trust(str(tmp_path / name)) for name in ("strict", "own")}
    async with cloud(template, own_images=True, trusts=trusts) as c:
        for name, refused in (("strict", True), ("own", False)):
            assert (await c.ask("PUT", "/projects/db/policy", {"signatures": name})).status == 200
            text = (await c.ask("POST", "/build", project="db")).body.decode()
            assert ("cannot take what is built: the image policy refuses it" in text) == refused, text


async def test_a_process_gets_no_more_than_its_container_may_have(template: Path) -> None:
    async with cloud(template) as c:
        await c.give_image("db")
        running = BOX | {"command": ["sleep", "100"], "capAdd": ["SYS_TIME"]}
        for made in (running, running | {"name": "old", "privileged": True}):
            assert (await c.ask("POST", "/containers?start=1", made, project="db")).status == 201
        strict = {"privileged": False, "capabilities": ["NET_ADMIN"]}
        assert (await c.ask("PUT", "/projects/db/policy", strict)).status == 200
        for of, more, status in (
            ("a", {"privileged": True}, 403),
            ("a", {"capabilities": ["SYS_ADMIN"]}, 403),
            ("a", {"ambient": ["CAP_SYS_ADMIN"]}, 403),
            ("a", {"capabilities": ["CHOWN", "SYS_TIME", "CAP_NET_ADMIN"]}, 201),
            ("old", {"privileged": True}, 201),  # it was there before, and goes on
        ):
            got = await c.ask("POST", f"/containers/{of}/exec", {"command": ["true"], **more}, project="db")
            assert got.status == status, got.body
            assert (b"the project's policy (" in got.body) == (status == 403)
        assert (await c.ask("PUT", "/projects/db/policy", {"capabilities": []})).status == 200
        got = await c.ask("POST", "/containers/a/exec", {"command": ["true"], "privileged": True}, project="db")
        assert got.status == 403 and "(capabilities: none)" in got.json["message"]


@pytest.mark.parametrize("before", [True, False])
def test_what_deployments_and_jobs_make_is_by_the_policy_of_that_time(act: Any, before: bool) -> None:
    """Of drivers, which is looked at as a container is made, and of what was asked for before there was a policy."""
    strict, box = Policy(drivers=["firecracker"], privileged=False), ContainerSpec(image=IMAGE, privileged=not before)

    async def scenario(s: Stage) -> None:
        tenancy = s.engine.tenancy
        tenancy.organisations.create(OrganisationRequest(name="blue"))
        web = tenancy.projects.create(ProjectRequest(name="web"))
        s.give_image(web.id)
        if before:
            tenancy.projects.restrict("web", strict)
        who = Principal("token:x", web.id, frozenset({"operate", "read"}))
        with asked_by(who._replace(policy=strict if before else None)):
            s.engine.deployments.create(DeploymentRequest(name="d", container=box, replicas=1))
            s.engine.crons.create(CronRequest(name="j", schedule="* * * * *", container=box))
        tenancy.projects.restrict("web", strict)
        await asyncio.sleep(61)
        with asked_by(who):
            says = f"the project's policy ({'drivers: firecracker' if before else 'privileged'}) does not allow"
            assert says in s.engine.deployments.info("d").message
            assert says in s.engine.crons.info("j").runs[0].error
            assert s.engine.registry.containers() == []
            await s.engine.keeper.remove("d")
            await s.engine.cron_runner.remove("j", force=True)

    act(scenario, network="bridge")


def test_what_was_saved_goes_on_by_a_driver_that_the_policy_has(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        driver = s.engine.registry.pod("a").spec.driver
        await s.call(s.engine.snapshots.create(SnapshotRequest(pod="a", name="shot")))
        for allowed in ("other", driver):
            with asked_by(Principal("uid:0", policy=Policy(drivers=[allowed]))):
                for work in (
                    s.engine.snapshots.fork("a", ForkRequest()),
                    s.engine.snapshots.restore("shot", RestoreRequest()),
                ):
                    if allowed == driver:
                        await work
                        continue
                    with pytest.raises(PermissionDenied, match="policy .drivers: other. does not allow the driver"):
                        await work
        assert len(s.engine.registry.pods()) == 3

    act(scenario, factory=True)
