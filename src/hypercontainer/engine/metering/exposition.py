# SPDX-License-Identifier: Apache-2.0
"""Use and accounts as Prometheus takes them, in its text format 0.0.4
(https://prometheus.io/docs/instrumenting/exposition_formats).

Counters are of this month, by UTC, and begin anew with the next one, which `rate` and `increase` understand; those of a
pod's egress begin with its machine, or with hyperd.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ...model.billing import MICRO
from ...model.metering import UsageRow
from ...model.statistics import EgressStats

CONTENT_TYPE = "text/plain; version=0.0.4"
_SECONDS, _STORAGE, _BYTES = "hyper_pod_seconds_total", "hyper_storage_gib_seconds_total", "hyper_egress_bytes_total"
_ADDRESSES = "hyper_address_seconds_total"
_STARTS, _BALANCE, _SUSPENDED = "hyper_pod_runs_total", "hyper_account_balance", "hyper_account_suspended"
_BY_POD = "hyper_pod_egress_"  # the start of a name, and how each goes on
_CONNECTIONS, _REFUSED, _PACKETS = (f"{_BY_POD}{n}_total" for n in ("connections", "refused", "refused_packets"))
_RECEIVED, _SENT = (f"{_BY_POD}{n}_bytes_total" for n in ("received", "sent"))
HELP = {
    _SECONDS: ("counter", "Seconds of pods this month."),
    _STARTS: ("counter", "Runs of pods that ended this month."),
    _STORAGE: ("counter", "GiB of storage by seconds this month."),
    _ADDRESSES: ("counter", "Seconds of floating addresses this month."),
    _BYTES: ("counter", "Bytes that pods have sent this month."),
    _BALANCE: ("gauge", "Credits of an organisation without what it used, in its currency."),
    _SUSPENDED: ("gauge", "1: its pods are suspended for want of credit."),
    _CONNECTIONS: ("counter", "Connections of a pod with an egress policy to hosts that it may reach."),
    _REFUSED: ("counter", "Connections, requests and questions for names of such a pod that were refused."),
    _PACKETS: ("counter", "Packets of IPv4 of such a pod that were dropped."),
    _RECEIVED: ("counter", "Bytes of such a pod's connections, to the pod."),
    _SENT: ("counter", "Bytes of such a pod's connections, from the pod."),
}


class Balance(NamedTuple):
    """What an organisation has left."""

    organisation: str  # name
    currency: str
    amount: int  # of 10^-6
    suspended: bool


class PodEgress(NamedTuple):
    """Of a pod that has an egress policy."""

    organisation: str  # names; "" of what belongs to no project
    project: str
    pod: str
    stats: EgressStats


def expose(rows: Iterable[UsageRow], accounts: Iterable[Balance], egress: Iterable[PodEgress] = ()) -> str:
    """All of it."""
    samples: dict[str, dict[str, float]] = {name: {} for name in HELP}
    for name, labels, value in [*_of_use(rows), *_of_accounts(accounts), *_of_egress(egress)]:
        given = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        series = f"{name}{{{given}}}"
        samples[name][series] = samples[name].get(series, 0) + value  # one of a name and labels, or all are refused
    told = [
        line for name, found in samples.items() if found
        for line in (
            f"# HELP {name} {HELP[name][1]}", f"# TYPE {name} {HELP[name][0]}",
            *(f"{series} {value:.15g}" for series, value in found.items()),
        )
    ]  # fmt: skip
    return "".join(f"{line}\n" for line in told)


Sample = tuple[str, dict[str, str], float]


def _of_use(rows: Iterable[UsageRow]) -> Iterator[Sample]:
    for row in rows:
        labels = {"organisation": row.organisation, "project": row.project}
        if row.kind == "pod":
            yield _SECONDS, {**labels, "size": row.size}, row.quantity / 1000
            yield _STARTS, {**labels, "size": row.size}, row.starts
        elif row.kind == "address":
            yield _ADDRESSES, {**labels, "version": row.size}, row.quantity / 1000
        elif row.kind == "egress":
            yield _BYTES, labels, row.quantity
        else:
            yield _STORAGE, {**labels, "kind": row.kind}, row.quantity / (1024 * 1000)


def _of_accounts(accounts: Iterable[Balance]) -> Iterator[Sample]:
    for found in accounts:
        labels = {"organisation": found.organisation, "currency": found.currency}
        yield _BALANCE, labels, found.amount / MICRO
        yield _SUSPENDED, {"organisation": found.organisation}, int(found.suspended)


def _of_egress(pods: Iterable[PodEgress]) -> Iterator[Sample]:
    for organisation, project, pod, found in pods:
        labels = {"organisation": organisation, "project": project, "pod": pod}
        yield _CONNECTIONS, labels, found.connections
        yield _REFUSED, labels, found.refused
        yield _PACKETS, labels, found.refused_packets
        yield _RECEIVED, labels, found.rx_bytes
        yield _SENT, labels, found.tx_bytes


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
