# SPDX-License-Identifier: Apache-2.0
"""What is used, measured: docs/metering.md.

`meter`     follows records: what begins and ends with a change of one is written by the transaction that writes it
`intervals` what of an interval of use goes into the ledger
`watch`     what no record tells of: sizes on the disk, days that end, moments that are marked
`collecting` what is used on several hosts becomes one ledger
`sums`      what `usage` answers
"""
