# SPDX-License-Identifier: Apache-2.0
"""An organisation's credit comes to its end, and there is more: what becomes of its pods, and what is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.engine.principal import asked_by
from hypercontainer.errors import InvalidArgument, NotFound, PermissionDenied
from hypercontainer.model.billing import AccountRequest, CreditRequest, Prices
from hypercontainer.model.principal import Principal, widened
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.model.status import Event, Pod
from hypercontainer.model.tenancy import OrganisationRequest, ProjectRequest
from hypercontainer.sys import clock

from . import hyperctl
from .served import served
from .stage import IMAGE, Stage

PRICES = Prices(name="standard", currency="USD", valid_from="2023-01-01", vcpu_second="0.001")


def organisation(s: Stage, name: str = "red") -> Principal:
    """With a project; gives who acts in that."""
    s.engine.tenancy.organisations.create(OrganisationRequest(name=name))
    project = s.engine.tenancy.projects.create(ProjectRequest(name=f"{name}-web", organisation=name))
    s.give_image(project.id)
    return Principal("token:1", project.id, widened(["operate", "audit"]))


async def run(who: Principal, s: Stage, name: str, *command: str, **how: Any) -> None:
    async def start() -> None:
        with asked_by(who):
            spec = ContainerSpec(image=IMAGE, name=name, command=list(command) or None, **how)
            container = await s.engine.containers.create(spec)
            await s.engine.containers.start(container.id)

    await s.call(start())


async def remove(who: Principal, s: Stage, name: str) -> None:
    with asked_by(who):
        await s.engine.containers.remove(name, force=True)


def status(s: Stage, name: str) -> str:
    return next(c.state.status.value for c in s.engine.registry.containers() if c.name == name)


def told(s: Stage) -> list[str]:
    found = [e for e in s.engine.events.past() if e.type == "billing" and not e.tenant]
    return [e.action + e.attributes.get("percent", "") for e in found]


async def heard(s: Stage, who: Principal) -> list[Event]:
    """Events of bills that somebody is told of."""
    with asked_by(who):
        return [e async for e in s.engine.events.follow(0, clock.now_ns()) if e.type == "billing"]


@pytest.mark.parametrize("policy", ["suspend", "stop"])
def test_at_zero_pods_are_put_to_rest_and_a_credit_lets_them_go_on(act: Callable[..., None], policy: Any) -> None:
    async def scenario(s: Stage) -> None:
        who, other = organisation(s), organisation(s, "blue")
        accounts = s.engine.accounts
        accounts.bills.put_prices(PRICES)
        accounts.credit("red", CreditRequest(amount=100_000))  # for a hundred seconds
        accounts.change_account("red", AccountRequest(prepaid=True, policy=policy, grace=120, budget=50_000))
        await run(who, s, "a")
        await run(other, s, "b")
        await asyncio.sleep(90)
        assert status(s, "a") == "running" and told(s) == ["credit", "budget50", "budget80", "budget100"]
        await asyncio.sleep(75)
        assert told(s)[4:] == ["empty"] and status(s, "a") == "running"
        with pytest.raises(PermissionDenied, match="red has no credit left"):
            await run(who, s, "c")
        at = {e.action: e.time_nano for e in s.engine.events.past() if e.type == "billing"}
        await asyncio.sleep(120 - (clock.now_ns() - at["empty"]) / 1e9 + 5)  # the grace
        assert told(s)[4:] == ["empty", "suspend"]
        assert {e.action for e in await heard(s, who)} >= {"budget", "suspend"}
        assert {e.attributes["name"] for e in await heard(s, other)} <= {"blue"}
        assert status(s, "a") == ("suspended" if policy == "suspend" else "exited") and status(s, "b") == "running"
        assert accounts.account("red").suspended
        used = -accounts.account("red").balance
        await asyncio.sleep(3600)
        assert -accounts.account("red").balance == used  # nothing is used meanwhile
        s.kill()
        await s.open()
        s.engine.accounts.credit("red", CreditRequest(amount=10_000_000))
        await asyncio.sleep(30)
        assert status(s, "a") == ("running" if policy == "suspend" else "exited")
        assert told(s)[-2:] == ["credit", "resume"]
        await run(who, s, "d")
        assert status(s, "d") == "running"
        s.engine.accounts.change_account("red", AccountRequest(prepaid=False))

    act(scenario, factory=True)


def prepaid(s: Stage, *names: str) -> None:
    """These organisations are, and have no credit."""
    s.engine.accounts.bills.put_prices(PRICES)
    for name in names:
        s.engine.accounts.change_account(name, AccountRequest(prepaid=True, grace=30))
        s.engine.accounts.credit(name, CreditRequest(amount=1_000))  # for a second


def test_a_daemon_that_dies_while_pods_are_woken_leaves_them_to_the_next_one(act: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        who = organisation(s)
        prepaid(s, "red")
        await run(who, s, "a")
        await asyncio.sleep(180)
        assert status(s, "a") == "suspended"
        s.engine.accounts.enforcement.resume = _hang
        s.engine.accounts.credit("red", CreditRequest(amount=10_000_000))
        await asyncio.sleep(10)
        assert told(s)[-1] == "resume" and status(s, "a") == "suspended"
        s.kill()
        await s.open()
        await asyncio.sleep(10)
        assert status(s, "a") == "running"
        s.engine.accounts.change_account("red", AccountRequest(prepaid=False))

    act(scenario, factory=True)


def test_pods_that_are_slow_to_rest_keep_no_other_organisation_waiting(act: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        slow, other = organisation(s, "blue"), organisation(s)  # seen to by their names
        prepaid(s, "blue", "red")
        enforcement = s.engine.accounts.enforcement
        suspend = enforcement.suspend
        enforcement.suspend = lambda pod: _hang(pod) if pod.tenant == slow.tenant else suspend(pod)
        await run(slow, s, "a")
        await run(other, s, "b")
        await asyncio.sleep(180)
        assert (status(s, "a"), status(s, "b")) == ("running", "suspended")
        for name in ("blue", "red"):
            s.engine.accounts.change_account(name, AccountRequest(prepaid=False))

    act(scenario, factory=True)


def test_a_program_that_does_not_end_is_not_waited_for_as_long_as_it_likes(act: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        who = organisation(s)
        prepaid(s, "red")
        s.engine.accounts.change_account("red", AccountRequest(policy="stop"))
        await run(who, s, "a", "ignore-term", stop_timeout=10**6)
        await asyncio.sleep(120)
        assert s.engine.accounts.account("red").suspended
        await asyncio.sleep(100)
        assert status(s, "a") == "exited"
        s.engine.accounts.change_account("red", AccountRequest(prepaid=False))

    act(scenario)


async def _hang(pod: Pod) -> None:
    await asyncio.Event().wait()


def test_an_organisation_that_is_removed_has_its_last_invoice(act: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        who, other, accounts = organisation(s), organisation(s, "blue"), s.engine.accounts
        accounts.bills.put_prices(PRICES)
        await run(who, s, "a")
        id_ = s.engine.tenancy.organisations.inspect("red").id
        await asyncio.sleep(100)
        await s.call(remove(who, s, "a"))
        owed = accounts.invoice("red", "").total
        await s.call(s.engine.tenancy.projects.remove("red-web"))
        s.engine.tenancy.organisations.remove("red")
        await asyncio.sleep(1)  # events are written a moment later
        s.kill()
        await s.open()
        found = s.engine.accounts.invoice(id_, "")
        assert (found.organisation_name, found.number, found.total) == ("red", 1, owed) and owed > 0
        assert s.engine.accounts.account(id_).balance == -owed
        assert [e.attributes["name"] for e in s.engine.events.past() if e.action == "invoice"] == ["red"]
        with asked_by(other), pytest.raises(NotFound):
            s.engine.accounts.invoice(id_, "")

    act(scenario)


def test_who_sees_and_changes_an_account(act: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        who, other = organisation(s), organisation(s, "blue")
        accounts = s.engine.accounts
        with pytest.raises(NotFound, match="price list"):
            accounts.account("red")
        accounts.bills.put_prices(PRICES)
        with asked_by(who):
            assert accounts.account("").organisation == "red" == accounts.invoice("red", "").organisation_name
            for ask in (lambda: accounts.account("blue"), lambda: accounts.invoice("blue", "")):
                with pytest.raises(NotFound):
                    ask()
            with pytest.raises(PermissionDenied):
                accounts.change_account("red", AccountRequest(budget=1))
        with asked_by(other._replace(scopes=widened(["operate"]))), pytest.raises(PermissionDenied):
            accounts.account("blue")
        with pytest.raises(InvalidArgument, match="which organisation"):
            accounts.account("")
        with pytest.raises(InvalidArgument, match="no such month"):
            accounts.invoice("red", "2023-1")

    act(scenario)


async def test_the_command_line_and_rest(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each verb of `billing` and `usage`, by a daemon that serves."""
    deploy = Path(__file__).parents[2] / "deploy/caas/prices.toml"
    async with served(template, metering=True) as s:
        monkeypatch.setenv("HYPER_HOST", str(s.path))

        async def ctl(*args: str) -> str:
            status, out, err = await hyperctl.call(*args)
            assert status == 0, err
            return out.decode("latin-1")

        for args in (("organisation", "create", "red"), ("project", "create", "web", "--organisation", "red")):
            await ctl(*args)
        await ctl("billing", "prices", str(deploy))
        assert "S4=0.000002" in await ctl("billing", "prices")
        assert "25.00 USD left" in await ctl("billing", "credit", "red", "5", "--reason", "thanks")
        assert "25.00 USD left" not in await ctl("billing", "credit", "red", "-4.5")
        await ctl("billing", "budget", "red", "0.5")
        await ctl("billing", "set", "red", "--prepaid", "--policy", "stop", "--grace", "1h")
        found = await ctl("billing", "account", "red")
        assert "20.50 USD left" in found and "of a budget of 0.50" in found and "stopped, after 3600 s" in found
        await s.stage.run("a", size="S4")
        rows = json.loads(await ctl("usage", "--by", "size", "--format", "json"))["rows"]
        assert [r["size"] for r in rows if r["kind"] == "pod"] == ["S4"]
        assert "S4" in await ctl("usage", "--by", "size", "--by", "day")
        assert (await ctl("usage", "--check")).endswith("entries\n")
        assert "0.000000 USD" in await ctl("billing", "invoice", "red")
        assert (await ctl("billing", "invoice", "red", "--format", "csv")).startswith("project,what,size")
        await ctl("billing", "invoice", "red", "--format", "pdf", "-o", str(tmp_path / "i.pdf"))
        assert (tmp_path / "i.pdf").read_bytes().startswith(b"%PDF")
        answer = await s.ask("GET", "/v1/usage/metrics")
        assert b'hyper_account_balance{organisation="red",currency="USD"} 20.5' in answer.body
        assert b'hyper_pod_seconds_total{organisation="",project="",size="S4"} ' in answer.body
        for args, why in (
            (("billing", "credit", "red", "1e3"), "invalid amount"), (("billing", "account", "blue"), "no such organ"),
            (("billing", "prices", "/nowhere"), "cannot read /nowhere"), (("usage", "--since", "x"), "invalid time"),
            (("billing", "prices", __file__), "neither TOML nor JSON"),
            (("billing", "invoice", "red", "--month", "2"), "no such month"),
            (("usage", "--since", "1h", "--until", "2h"), "before"),
        ):  # fmt: skip
            status, _, err = await hyperctl.call(*args)
            assert status == 1 and why in err.decode(), (args, err)
