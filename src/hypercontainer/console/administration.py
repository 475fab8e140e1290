# SPDX-License-Identifier: Apache-2.0
"""The host's administrator: this host, its machines by project, organisations and what they may have."""

from __future__ import annotations

import contextlib
from collections import Counter

import msgspec
from aiohttp import web

from ..engine.principal import current
from ..errors import InvalidArgument, NotFound
from ..model.quotas import BYTES, read_quota
from ..model.tenancy import OrganisationRequest, ProjectInfo, ProjectRequest
from .call import NONE, Call, Pages

pages = Pages()


@pages.get("/host", scope="admin")
async def host(c: Call) -> web.StreamResponse:
    """What this host is, what it has of what is needed, and whose machines run."""
    _outside(c)
    info, checks = await c.engine.info(), await c.engine.doctor()
    running = [p for p in c.engine.registry.pods() if p.vm]
    machines: Counter[str] = Counter()
    cpus: Counter[str] = Counter()
    memory: Counter[str] = Counter()
    for pod in running:
        name = c.engine.tenants.name(pod.tenant) if pod.tenant else ""
        machines[name] += 1
        cpus[name] += pod.vcpus
        memory[name] += pod.memory
    rows = [(name, count, cpus[name], memory[name]) for name, count in machines.most_common()]
    return c.page("host.html", title="Host", info=info, checks=checks, rows=rows, memory=memory.total())


@pages.get("/organisations", scope="admin")
async def organisations(c: Call) -> web.StreamResponse:
    """All of them, their projects and accounts."""
    _outside(c)
    found = c.engine.tenancy.organisations.all()
    projects: dict[str, list[tuple[ProjectInfo, str]]] = {o.id: [] for o in found}
    for project in c.engine.tenancy.projects.all():
        projects[project.organisation_id].append((project, _written(project)))
    accounts = {}
    with contextlib.suppress(NotFound):  # there are no prices
        accounts = {o.id: c.engine.accounts.account(o.id) for o in found}
    return c.page(
        "organisations.html", title="Organisations", organisations=found, projects=projects, accounts=accounts
    )


@pages.post("/organisations", scope="admin")
async def create_organisation(c: Call) -> web.StreamResponse:
    """Make one."""
    _outside(c)
    c.engine.tenancy.organisations.create(OrganisationRequest(name=c.form.get("name", "").strip()))
    return c.see("organisations")


@pages.post("/organisations/{name}/projects", scope="admin")
async def create_project(c: Call) -> web.StreamResponse:
    """Make one of an organisation's."""
    _outside(c)
    c.engine.tenancy.projects.create(ProjectRequest(name=c.form.get("name", "").strip(), organisation=c.name))
    return c.see("organisations")


@pages.post("/organisations/{name}/quota", scope="admin")
async def limit(c: Call) -> web.StreamResponse:
    """What a project may have, as of `hyperctl project quota`: what is not named stays."""
    _outside(c)
    words = [word.partition("=") for word in c.form.get("quota", "").split()]
    if not words or any(not value for _, _, value in words):
        raise InvalidArgument("the quota cannot be read", hint="write it like pods=10 memory=8g, or pods=none")
    before = c.engine.tenancy.projects.inspect(c.name).quota
    given = read_quota({name: value for name, _, value in words})
    c.engine.tenancy.projects.limit(c.name, msgspec.structs.replace(before, **given))
    return c.see("organisations")


def _written(project: ProjectInfo) -> str:
    limits = msgspec.structs.asdict(project.quota)
    return " ".join(f"{name}={_exact(name, most)}" for name, most in limits.items() if most is not None)


def _exact(name: str, number: int) -> str:
    """As it is read again, to the byte."""
    for shift, unit in ((30, "g"), (20, "m")) if name in BYTES else ():
        if number and not number % (1 << shift):
            return f"{number >> shift}{unit}"
    return str(number)


def _outside(c: Call) -> None:
    """:raise NotFound: in a project there is no host."""
    if c.project != NONE or current().tenant:
        raise NotFound("this page is of the host, and of no project")
