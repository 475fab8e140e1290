# SPDX-License-Identifier: Apache-2.0
"""billing: prices, credits, budgets and invoices."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import click
import msgspec

from ..client.api import Query
from ..errors import InvalidArgument
from ..model.billing import (
    AccountInfo,
    AccountRequest,
    CreditRequest,
    Invoice,
    Line,
    Prices,
    read_money,
    write_money,
)
from ..model.sentences import explain
from ..model.units import parse_duration
from .context import client
from .output import print_json, show, show_details
from .whole_file import write_out

_FORMAT = click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
_ORGANISATION = click.argument("organisation", default="")


@click.group()
def billing() -> None:
    """What use costs: price lists, credits, budgets, invoices."""


@billing.command()
@click.argument("file", default="", type=str)
@_FORMAT
def prices(file: str, format_: str) -> None:
    """List price lists; with a FILE (TOML, or JSON; - is stdin) bring a version of one.

    It holds from its `validFrom` on; prices are decimal numbers in quotes.
    """
    if file:
        client().call(Prices, "POST", "/billing/prices", body=_read(file))
        return
    found = client().call(list[Prices], "GET", "/billing/prices")

    def cells(p: Prices) -> list[str]:
        sizes = " ".join(f"{size}={price}" for size, price in p.sizes.items())
        return [p.name, p.valid_from, p.currency, f"{p.minimum_seconds} s", sizes or "-"]

    show(found, format_, ["NAME", "VALID FROM", "CURRENCY", "MINIMUM", "SECOND OF A SIZE"], cells)


def _read(file: str) -> Prices:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
        document = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except OSError as error:
        raise InvalidArgument(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidArgument(f"{file} is neither TOML nor JSON: {error}") from error
    try:
        return msgspec.convert(document, Prices)
    except msgspec.ValidationError as error:
        raise InvalidArgument(
            f"{file} is no price list: {explain(error, document, Prices)}", hint="see docs/metering.md"
        ) from error


@billing.command()
@_ORGANISATION
@_FORMAT
def account(organisation: str, format_: str) -> None:
    """Show an organisation's account: what is left, what was paid, how it pays."""
    found = client().call(AccountInfo, "GET", "/billing/account", query={"organisation": organisation})
    if format_:
        show_details([found], format_)
        return
    money = f"{write_money(found.balance, 2)} {found.currency}"
    print(f"{found.organisation}: {money} left{', suspended' * found.suspended}")
    print(f"{found.month}: {write_money(found.this_month)} {found.currency} so far" + _of_budget(found))
    how = f"prepaid: at zero its pods are {found.policy}ed, after {found.grace:g} s" if found.prepaid else "postpaid"
    print(f"prices: {found.prices}; {how.replace('stoped', 'stopped')}")
    for c in found.credits:
        print(f"  {c.created_at[:10]}  {write_money(c.amount, 2):>14}  {c.reason}".rstrip())


def _of_budget(found: AccountInfo) -> str:
    return f", of a budget of {write_money(found.budget, 2)}" if found.budget else ""


@billing.command("set")
@click.argument("organisation")
@click.option("--prices", help="Name of a price list.")
@click.option("--prepaid/--postpaid", default=None, help="Whether its pods are suspended at zero.")
@click.option("--policy", type=click.Choice(["suspend", "stop"]), help="What becomes of its pods at zero.")
@click.option("--grace", metavar="DURATION", help="From zero to then, like 2h.")
def set_(organisation: str, prices: str | None, prepaid: bool | None, policy: str | None, grace: str | None) -> None:
    """Change how an organisation pays."""
    seconds = None if grace is None else parse_duration(grace)
    given = {"prices": prices, "prepaid": prepaid, "policy": policy, "grace": seconds}
    _change(organisation, msgspec.convert(given, AccountRequest))


@billing.command()
@click.argument("organisation")
@click.argument("amount")
def budget(organisation: str, amount: str) -> None:
    """Have events tell when an organisation has used 50, 80 and 100 % of so much in a month; 0: none do."""
    _change(organisation, AccountRequest(budget=read_money(amount)))


def _change(organisation: str, request: AccountRequest) -> None:
    client().call(AccountInfo, "PUT", f"/billing/accounts/{organisation}", body=request)


@billing.command(context_settings={"ignore_unknown_options": True})
@click.argument("organisation")
@click.argument("amount")
@click.option("--reason", default="", help="A few words for the account.")
def credit(organisation: str, amount: str, reason: str) -> None:
    """Give an organisation a credit, in its currency; an amount below 0 takes it back."""
    request = CreditRequest(amount=read_money(amount), reason=reason)
    found = client().call(AccountInfo, "POST", f"/billing/accounts/{organisation}/credits", body=request)
    print(f"{write_money(found.balance, 2)} {found.currency} left")


@billing.command()
@_ORGANISATION
@click.option("--month", default="", metavar="YYYY-MM", help="This one, as it would be now, where nothing is said.")
@click.option("-f", "--format", "format_", default="", metavar="json|csv|pdf|TEMPLATE", help="How to print.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
def invoice(organisation: str, month: str, format_: str, output: Path | None) -> None:
    """Show the invoice of a month."""
    query: Query = {"organisation": organisation, "month": month}
    if format_ in ("csv", "pdf"):
        if format_ == "pdf" and output is None and sys.stdout.isatty():
            raise InvalidArgument("PDF is nothing for a terminal", hint="give -o FILE")
        data = client().open("GET", "/billing/invoice", {**query, "format": format_}).read()
        write_out([data], str(output) if output else None)
        return
    found = client().call(Invoice, "GET", "/billing/invoice", query=query)
    if output:
        raise InvalidArgument("--output is for csv and pdf")
    if format_ == "json":
        print_json(found)
        return

    def cells(line: Line) -> list[str]:
        return [line.project, line.what, line.size, line.used, line.price, write_money(line.amount)]

    show(found.lines, format_, ["PROJECT", "WHAT", "SIZE", "USED", "PRICE", "AMOUNT"], cells)
    if not format_:
        about = f"no. {found.number}" if found.number else "not issued"
        print(f"{found.month}, {about}: {write_money(found.total)} {found.currency}")
