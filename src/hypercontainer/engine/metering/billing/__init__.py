# SPDX-License-Identifier: Apache-2.0
"""What use costs, and who has paid: docs/metering.md.

`charges`     lines of an invoice, of sums of days and a price list; rounds
`bills`       accounts, credits, invoices, and what is left
`enforcement` budgets that are told of, and accounts at zero
`documents`   invoices as CSV and PDF
"""
