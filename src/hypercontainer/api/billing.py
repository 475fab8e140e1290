# SPDX-License-Identifier: Apache-2.0
"""Prices, accounts and invoices over REST. Who sees which: engine/metering/rights.py."""

from __future__ import annotations

from aiohttp import web

from ..engine.metering.billing.documents import as_csv, as_pdf
from ..errors import InvalidArgument
from ..model.billing import AccountInfo, AccountRequest, CreditRequest, Invoice, Prices
from ..sys import tasks
from .router import Context, Routes

routes = Routes()


@routes.post("/billing/prices", body=Prices, status=201, scope="admin")
async def put_prices(c: Context) -> Prices:
    """Bring a version of a price list, which holds from its day on."""
    return c.engine.accounts.bills.put_prices(await c.body(Prices))


@routes.get("/billing/prices", also=("audit",), anywhere=True)
async def list_prices(c: Context) -> list[Prices]:
    """List all versions of all price lists, by name and day."""
    return c.engine.accounts.bills.prices()


@routes.get(
    "/billing/account", query={"organisation": "name or id; the only one, where it is left out"}, scope="audit",
    anywhere=True,
)  # fmt: skip
async def account(c: Context) -> AccountInfo:
    """Inspect an organisation's account: what is left, what was paid."""
    return c.engine.accounts.account(c.text("organisation"))


@routes.put("/billing/accounts/{id}", body=AccountRequest, scope="manage", anywhere=True)
async def change(c: Context) -> AccountInfo:
    """Change how an organisation pays; its owners may change the budget."""
    return c.engine.accounts.change_account(c.id, await c.body(AccountRequest))


@routes.post("/billing/accounts/{id}/credits", body=CreditRequest, status=201, scope="admin")
async def credit(c: Context) -> AccountInfo:
    """Give an organisation a credit, or, below 0, take it back."""
    return c.engine.accounts.credit(c.id, await c.body(CreditRequest))


@routes.get(
    "/billing/invoice",
    query={
        "organisation": "name or id; the only one, where it is left out",
        "month": "as 2026-01; this one, as it would be now, where it is left out",
        "format": "json, csv or pdf",
    },
    result=Invoice,
    scope="audit",
    anywhere=True,
)
async def invoice(c: Context) -> Invoice | web.Response:
    """Show an invoice; of a month that is not over what it would be now."""
    found = c.engine.accounts.invoice(c.text("organisation"), c.text("month"))
    kind = c.text("format") or "json"
    if kind == "json":
        return found
    if kind == "csv":
        return web.Response(text=as_csv(found), content_type="text/csv")
    if kind == "pdf":
        pdf = await tasks.in_thread(lambda: as_pdf(found))
        return web.Response(body=pdf, content_type="application/pdf")
    raise InvalidArgument(f"invoices have no format {kind!r}", hint="give json, csv or pdf")
