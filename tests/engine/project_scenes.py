# SPDX-License-Identifier: Apache-2.0
"""Verbs of a container cloud, as `scenes`: deployments, jobs, floating addresses, security groups, backups, log-ins.

What must hold in the end, whatever came between, is each scene's `after`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

from msgspec.structs import replace

from hypercontainer.engine.tenancy.logins import LoginSettings
from hypercontainer.model.cron import RUN_LABEL, CronRequest
from hypercontainer.model.deployments import BalancedPort, DeploymentRequest, DeploymentUpdate, UpdatePolicy
from hypercontainer.model.fips import FipRequest
from hypercontainer.model.network import NetworkRequest
from hypercontainer.model.security_groups import SecurityGroupSpec, SecurityGroupUpdate, parse_rule
from hypercontainer.model.specs import ContainerSpec, Mount
from hypercontainer.model.tenancy import MemberRequest, OrganisationRequest, UserRequest
from hypercontainer.network.floating import FipSettings

from .scenes import VOLUME, Act, Scene, spec
from .stage import IMAGE, Stage


def at_once(verb: Callable[[Stage], Any]) -> Act:
    """A verb that waits for nothing."""

    async def done(s: Stage) -> Any:
        return verb(s)

    return done


def after(*acts: Act) -> Act:
    """One stage of several parts."""

    async def done(s: Stage) -> None:
        for act in acts:
            await s.call(act(s))

    return done


async def _open_shortly(s: Stage) -> None:
    """With what the daemon does by itself at first."""
    await s.engine.open()
    await asyncio.sleep(6)


# -- deployments --------------------------------------------------------------------------

_ENDLESS = ContainerSpec(image=IMAGE, command=["sleep", "1000000"])
_OTHER = replace(_ENDLESS, env=["A=2"])
_GROWN = DeploymentUpdate(container=_OTHER, replicas=3)
_FLEET = DeploymentRequest(
    name="web", container=_ENDLESS, replicas=2, ports=[BalancedPort(port=80, target=8080)],
    update=UpdatePolicy(monitor=0.2, drain=0.1),
)  # fmt: skip


async def _until(right: Callable[[], bool]) -> None:
    """For a minute at most, as a disk that is full stays so for that long."""
    for _ in range(1200):
        if right():
            return
        await asyncio.sleep(0.05)


async def _complete(s: Stage) -> None:
    await _until(lambda: s.engine.deployments.info("web").state == "complete")


async def _create_fleet(s: Stage) -> None:
    s.engine.deployments.create(_FLEET)
    await _complete(s)


def _change(**how: Any) -> Act:
    async def change(s: Stage) -> None:
        s.engine.deployments.update("web", DeploymentUpdate(**how))
        await _complete(s)

    return change


async def _roll_back(s: Stage) -> None:
    s.engine.deployments.roll_back("web")
    await _complete(s)


async def _left_fleet(s: Stage) -> None:
    """A daemon was killed in the midst of an update, and a replica has ended since."""
    await s.call(_create_fleet(s))
    await s.call(at_once(lambda s: s.engine.deployments.update("web", _GROWN))(s))
    await asyncio.sleep(0.15)
    machine = s.machine(next(c.name for c in s.engine.registry.containers() if c.name.startswith("web-")))
    s.kill()
    machine.die()
    await asyncio.sleep(3)
    s.prepare()


async def _fleet_is_right(s: Stage) -> None:
    """It is not there at all, or as it was said to be, and nothing beside it."""
    for record in s.engine.deployments.records():
        await asyncio.sleep(120)
        found = s.engine.deployments.get(record.id)
        if found and found.paused:  # what came between failed its update
            await s.call(at_once(lambda s: s.engine.deployments.update("web", DeploymentUpdate()))(s))
            await asyncio.sleep(120)
        if record.removing:
            assert s.engine.deployments.get(record.id) is None, "it is being removed for ever"
            continue
        info = s.engine.deployments.info(record.id)
        alive = [m for m in info.members if m.state != "ended"]
        assert len(alive) == info.ready == info.replicas and {m.version for m in alive} == {info.version}, info
        (balanced,) = s.engine.registry.balanced()
        assert sorted(balanced.targets) == sorted(m.ip for m in alive), (balanced, alive)
        await s.call(s.engine.keeper.remove(record.id))
    left = [c.name for c in s.engine.registry.containers() if c.name.startswith("web-")]
    assert not left, f"replicas of nothing: {left}"


def _fleet(verb: Act, *before: Act, **how: Any) -> Scene:
    return Scene(verb, after(*before) if before else None, "bridge", after=_fleet_is_right, varies=True, **how)


# -- jobs ---------------------------------------------------------------------------------


def _job(*command: str, **how: Any) -> Act:
    wanted = CronRequest(name="job", schedule="0 * * * *", container=_ENDLESS, keep=1)
    container = ContainerSpec(image=IMAGE, command=list(command), mounts=VOLUME)
    return at_once(lambda s: s.engine.crons.create(replace(wanted, container=container, **how)))


_begin = at_once(lambda s: s.engine.cron_runner.begin("job"))


async def _run_job(s: Stage) -> None:
    run = s.engine.cron_runner.begin("job")
    await _until(lambda: any(r.ended for r in s.engine.crons.info("job").runs if r.id == run.id))


async def _left_job(s: Stage) -> None:
    """A daemon was killed before a run had a container; another job was due meanwhile."""
    await s.call(_job("true")(s))
    await s.call(_begin(s))
    s.kill()
    await asyncio.sleep(3)
    s.prepare()


async def _jobs_are_right(s: Stage) -> None:
    """Each run has come to its end, once; what is removed has left nothing."""
    await asyncio.sleep(60)
    containers = s.engine.registry.containers()
    for record in s.engine.crons.records():
        for run in s.engine.crons.info(record.id).runs:
            made = [c for c in containers if c.spec.labels.get(RUN_LABEL) == run.id]
            assert len(made) <= 1, f"a run has {len(made)} containers"
            assert run.ended or (made and made[0].spec.command == ["sleep", "1000"]), f"a run goes on for ever: {run}"
        await s.call(s.engine.cron_runner.remove(record.id, force=True))
    left = [c.name for c in s.engine.registry.containers() if c.name.startswith("job-")]
    assert not left, f"runs of nothing: {left}"


def _cron(verb: Act, *before: Act, **how: Any) -> Scene:
    return Scene(verb, after(*before) if before else None, after=_jobs_are_right, varies=True, **how)


# -- floating addresses -------------------------------------------------------------------

_POOLS = {"fips": FipSettings((ip_network("203.0.113.0/30"),))}
_allocate = at_once(lambda s: s.engine.fips.allocate(FipRequest(name="shop")))
_release = at_once(lambda s: s.engine.fips.release("shop"))


async def _runs_networked(s: Stage) -> None:
    await s.engine.containers.create(spec("a", networks=[NetworkRequest(name="bridge")]))
    await s.engine.containers.start("a")


async def _attach(s: Stage) -> None:
    await s.engine.fips.attach("shop", "a")


async def _detach(s: Stage) -> None:
    await s.engine.fips.detach("shop")


async def _addresses_are_right(s: Stage) -> None:
    """Whatever is there can be given back, and given again."""
    for fip in s.engine.fips.all():
        if fip.pod:
            await s.call(s.engine.fips.detach(fip.id))
        s.engine.fips.release(fip.id)
    made = s.engine.fips.allocate(FipRequest(name="shop"))
    assert made.address == "203.0.113.0", made
    s.engine.fips.release("shop")
    await s.check()


def _fip(verb: Act, *before: Act) -> Scene:
    return Scene(
        verb, after(*before) if before else None, "bridge", after=_addresses_are_right, settings=_POOLS, varies=True
    )


# -- security groups ----------------------------------------------------------------------

_group = at_once(lambda s: s.engine.security_groups.create(SecurityGroupSpec(name="g", rules=_rules("in tcp 80"))))


def _rules(*texts: str) -> list[Any]:
    return [parse_rule(text) for text in texts]


async def _join_group(s: Stage) -> None:
    await s.engine.security_groups.attach("g", "a")


async def _leave_group(s: Stage) -> None:
    await s.engine.security_groups.detach("g", "a")


async def _change_group(s: Stage) -> None:
    await s.engine.security_groups.update("g", SecurityGroupUpdate(rules=_rules("in tcp 81", "in udp 53 @g")))


async def _remove_group(s: Stage) -> None:
    await s.engine.security_groups.remove("g")


async def _groups_are_right(s: Stage) -> None:
    """The pod's record and the groups' say the same, and all can go."""
    groups = s.engine.security_groups
    for told in groups.all():
        for pod in told.pods:
            await s.call(groups.detach(told.group.name, pod))
        await s.call(groups.remove(told.group.name))
    assert not any(p.spec.security_groups for p in s.engine.registry.pods())
    await s.check()


def _sg(verb: Act, *before: Act) -> Scene:
    return Scene(verb, after(*before) if before else None, "bridge", after=_groups_are_right, varies=True)


# -- backups, log-ins ---------------------------------------------------------------------


async def _back_up(s: Stage) -> None:
    async for _ in s.engine.backups.create():
        pass


async def _with_volume(s: Stage) -> None:
    await s.engine.containers.create(spec("a", mounts=[Mount(target="/data", source="vol")]))
    await s.engine.containers.start("a")


async def _backups_are_right(s: Stage) -> None:
    """No copy lies about, and the next one can be made."""
    await s.call(_back_up(s))
    left = list(s.paths.cache.glob("backup-*"))
    assert not left, f"left of a backup: {left}"


_LOGIN = LoginSettings(
    roles_claim="groups", roles={"red": ("red", "owner"), "blue": ("blue", "viewer"), "ops": ("green", "operator")}
)
_CLAIMS = {"sub": "ann-1", "preferred_username": "ann", "groups": ["red", "blue"]}


def _organisations(s: Stage) -> None:
    for name in ("red", "blue", "green"):
        s.engine.tenancy.organisations.create(OrganisationRequest(name=name))


def _known(s: Stage) -> None:
    """Somebody who is in an organisation in which the provider does not say so any more."""
    _organisations(s)
    tenancy = s.engine.tenancy
    tenancy.users.create(UserRequest(name="ann", login="ann-1"))
    tenancy.organisations.put_member("green", MemberRequest(user="ann", role="operator"))
    tenancy.organisations.put_member("red", MemberRequest(user="ann", role="viewer"))


_enter = at_once(lambda s: s.engine.tenancy.logins.enter(_CLAIMS, _LOGIN))


async def _people_are_right(s: Stage) -> None:
    """Who logs in again is one person, in the roles that the provider gives."""
    tenancy = s.engine.tenancy
    tenancy.logins.enter(_CLAIMS, _LOGIN)
    (user,) = tenancy.users.all()
    roles = {o.name: {m.user: m.role for m in o.members} for o in tenancy.organisations.all()}
    assert roles == {"red": {"ann": "owner"}, "blue": {"ann": "viewer"}, "green": {}}, roles
    tenancy.users.remove(user.id)
    assert not s.engine.tokens.all(), "log-ins of nobody"
    for name in ("red", "blue", "green"):
        tenancy.organisations.remove(name)


OF_PROJECTS: dict[str, Scene] = {
    "deployment create": _fleet(_create_fleet),
    "deployment scaled up": _fleet(_change(replicas=3), _create_fleet),
    "deployment scaled down": _fleet(_change(replicas=1), _create_fleet),
    "deployment update": _fleet(_change(container=_OTHER), _create_fleet),
    "deployment rollback": _fleet(_roll_back, _create_fleet, _change(container=_OTHER)),
    "deployment rm": _fleet(lambda s: s.engine.keeper.remove("web"), _create_fleet),
    "deployment by the next daemon": Scene(
        _open_shortly, _left_fleet, "bridge", opens=True, after=_fleet_is_right, varies=True
    ),
    "cron create": _cron(_job("true")),
    "cron run": _cron(_run_job, _job("true")),
    "cron run of another's place": _cron(_run_job, _job("true"), _run_job, _run_job),
    "cron rm": _cron(lambda s: s.engine.cron_runner.remove("job", force=False), _job("true"), _run_job),
    "cron rm -f": _cron(lambda s: s.engine.cron_runner.remove("job", force=True), _job("sleep", "1000"), _begin),
    "cron by the next daemon": Scene(_open_shortly, _left_job, opens=True, after=_jobs_are_right, varies=True),
    "fip allocate": _fip(_allocate),
    "fip attach": _fip(_attach, _allocate, _runs_networked),
    "fip detach": _fip(_detach, _allocate, _runs_networked, _attach),
    "fip release": _fip(_release, _allocate),
    "rm -f of what has a fip": _fip(
        lambda s: s.engine.containers.remove("a", force=True), _allocate, _runs_networked, _attach
    ),
    "sg create": _sg(_group),
    "sg attach": _sg(_join_group, _group, _runs_networked),
    "sg detach": _sg(_leave_group, _group, _runs_networked, _join_group),
    "sg update": _sg(_change_group, _group, _runs_networked, _join_group),
    "sg rm": _sg(_remove_group, _group),
    "backup create": Scene(_back_up, after(_with_volume), after=_backups_are_right, varies=True),
    "login of somebody new": Scene(_enter, after(at_once(_organisations)), after=_people_are_right),
    "login with other roles": Scene(_enter, after(at_once(_known)), after=_people_are_right),
}
