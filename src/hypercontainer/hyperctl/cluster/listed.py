# SPDX-License-Identifier: Apache-2.0
"""Verbs that ask a cluster about Pods, or remove them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click

from ...errors import Conflict, Unsupported
from ...model.moments import read_moment
from ...model.units import format_age
from ..context import for_each
from ..logs import lines_of
from ..output import print_table, show, show_details
from ..standard import write_all
from .connection import TIMEOUT, Cluster, cluster, explained
from .manifest import MANAGED, OURS
from .progress import state_of

_FORMAT = click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
_ENDED = ("Succeeded", "Failed")


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def missing(ctx: click.Context, words: tuple[str, ...]) -> None:
    """A verb that is hyperd's alone."""
    verb = ctx.command_path.partition(" ")[2]
    raise Unsupported(
        f"`{verb}` is no verb of a cluster, which has run, ps, logs, exec, inspect, rm, pod and version",
        hint=f"`hyperctl --context default {verb}` asks this host's hyperd",
    )


def status_of(pod: Any) -> str:
    """As `ps` has it: Docker's words where there are some."""
    state = state_of(pod)
    if state and state.running:
        return f"Up {_since(state.running.started_at)}"
    if state and state.terminated:
        return f"Exited ({state.terminated.exit_code}) {_since(state.terminated.finished_at)} ago"
    waiting = state.waiting.reason if state and state.waiting else ""
    return str(pod.status.reason or waiting or pod.status.phase)


def _since(moment: datetime | None) -> str:
    return format_age(moment.isoformat()) if moment else "some time"


def _row(pod: Any) -> dict[str, Any]:
    container = pod.spec.containers[0]
    command = [*(container.command or []), *(container.args or [])]
    return {
        "name": pod.metadata.name, "image": container.image, "command": " ".join(command), "status": status_of(pod),
        "createdSince": _since(pod.metadata.creation_timestamp) + " ago", "node": pod.spec.node_name or "",
        "address": pod.status.pod_ip or "", "runtimeClass": pod.spec.runtime_class_name or "",
    }  # fmt: skip


def _pods(c: Cluster, **wanted: str) -> list[Any]:
    """Of the namespace; `wanted` is what Kubernetes' client takes for less of them."""
    with explained("the Pods"):
        return list(c.pods.list_namespaced_pod(c.namespace, _request_timeout=TIMEOUT, **wanted).items)


@click.command()
@click.option("-a", "--all", "all_", is_flag=True, help="Also those that do not run.")
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
@_FORMAT
def ps(all_: bool, quiet: bool, format_: str) -> None:
    """List the Pods that `run` made in the context's namespace."""
    ours = _pods(cluster(), label_selector=f"{MANAGED}={OURS}")
    found = [p for p in ours if all_ or p.status.phase not in _ENDED]
    rows = [_row(p) for p in sorted(found, key=lambda p: p.metadata.creation_timestamp, reverse=True)]
    if quiet:
        print(*(row["name"] for row in rows), sep="\n", end="\n" if rows else "")
        return
    show(
        rows, format_, ["NAME", "IMAGE", "COMMAND", "CREATED", "STATUS", "NODE"],
        lambda r: [r["name"], r["image"], _cut(r["command"]), r["createdSince"], r["status"], r["node"]],
    )  # fmt: skip


def _cut(command: str) -> str:
    return json.dumps(command if len(command) <= 20 else f"{command[:19]}…", ensure_ascii=False)


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added.")
@click.option("-n", "--tail", default="all", help="Only the last so many lines.")
@click.option("--since", default="", help="Only what came after: 2026-01-31T12:00:00Z, or 10m for ten minutes ago.")
@click.option("-t", "--timestamps", is_flag=True, help="With the time of each line.")
@click.argument("pod")
def logs(pod: str, follow: bool, tail: str, since: str, timestamps: bool) -> None:
    """Show the output of a Pod's container, past and present."""
    lines = lines_of(tail)
    wanted: dict[str, Any] = {} if lines is None else {"tail_lines": lines}
    if since:
        before = datetime.now(UTC).timestamp() - read_moment(since) / 1e9
        wanted["since_seconds"] = max(1, round(before))
    c = cluster()
    show_logs(c, pod, c.pod(pod).spec.containers[0].name, follow=follow, timestamps=timestamps, **wanted)


def show_logs(c: Cluster, pod: str, container: str, *, follow: bool, **wanted: Any) -> None:
    """Print what the container has said, and with `follow` what it goes on to say, as it comes."""
    with explained(f"pod {pod}"):
        answer = c.pods.read_namespaced_pod_log(
            pod, c.namespace, container=container, follow=follow, _preload_content=False,
            _request_timeout=None if follow else TIMEOUT, **wanted,
        )  # fmt: skip
        with answer:
            while data := answer.read1(1 << 16):
                write_all(1, memoryview(data))


@click.command()
@_FORMAT
@click.argument("pods", nargs=-1, required=True)
def inspect(pods: tuple[str, ...], format_: str) -> None:
    """Show all about Pods, as Kubernetes has it."""
    c = cluster()
    from kubernetes import client  # which `cluster` has found to be there

    show_details([client.ApiClient().sanitize_for_serialization(c.pod(name)) for name in pods], format_)


@click.command()
@click.option("-f", "--force", is_flag=True, help="Also those that run, at once.")
@click.argument("pods", nargs=-1, required=True)
def rm(pods: tuple[str, ...], force: bool) -> int:
    """Remove Pods."""
    c = cluster()

    def remove(name: str) -> None:
        if not force and c.pod(name).status.phase not in _ENDED:
            raise Conflict(f"pod {name} runs", hint="give -f to end and remove it")
        delete(c, name, force=force)

    return for_each(pods, remove)


def delete(c: Cluster, name: str, *, force: bool = False) -> None:
    """:raise NotFound: there is none."""
    with explained(f"pod {name}"):
        grace = {"grace_period_seconds": 1} if force else {}
        c.pods.delete_namespaced_pod(name, c.namespace, _request_timeout=TIMEOUT, **grace)


@click.group()
def pod() -> None:
    """Pods of the context's namespace."""


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
@_FORMAT
def ls(quiet: bool, format_: str) -> None:
    """List all Pods, whoever made them."""
    found = [_row(p) for p in _pods(cluster())]
    if quiet:
        print(*(row["name"] for row in found), sep="\n", end="\n" if found else "")
        return
    show(
        found, format_, ["NAME", "STATUS", "ADDRESS", "NODE", "RUNTIME CLASS"],
        lambda r: [r["name"], r["status"], r["address"], r["node"], r["runtimeClass"]],
    )  # fmt: skip


for _each in (ls, inspect, rm):
    pod.add_command(_each)


@click.command()
def version() -> None:
    """Show the versions of this command and of the cluster."""
    from ... import __version__

    c = cluster()
    from kubernetes import client  # which `cluster` has found to be there

    with explained("the cluster's version"):
        found = client.VersionApi(c.pods.api_client).get_code(_request_timeout=TIMEOUT)
    print_table(["PART", "VERSION"], [["hyperctl", __version__], ["kubernetes", found.git_version]])
