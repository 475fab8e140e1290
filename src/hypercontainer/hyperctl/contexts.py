# SPDX-License-Identifier: Apache-2.0
"""context: names for hyperds and clusters of Kubernetes."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import Any

import click

from ..client.contexts import DEFAULT, Contexts
from ..errors import Conflict, InvalidArgument, NotFound
from .context import for_each
from .output import show as show_list
from .output import show_details

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.+-]{0,127}")
_FILES = {"tlscacert": "tlscacert", "tlscert": "tlscert", "tlskey": "tlskey", "token_file": "tokenFile"}
_CLUSTER = {
    "kubeconfig": "kubeconfig", "kube_context": "context", "namespace": "namespace", "runtime_class": "runtimeClass",
}  # fmt: skip
RUNTIME_CLASS = "hyper"


@click.group()
def context() -> None:
    """Names for hyperds and clusters that commands are for.

    \b
    hyperctl context create farm --host tcp://10.0.0.5:2376 --tlscacert ca.pem --token-file token
    hyperctl context create cloud --kubernetes --namespace work
    hyperctl context use farm; hyperctl ps; hyperctl --context cloud run --rm busybox echo hi
    """


_OPTIONS = (
    ("--description", "TEXT", "What it is, for people."),
    ("--host", "SOCKET|tcp://ADDRESS:PORT", "Where a hyperd is."),
    ("--tlscacert", "FILE", "CA of a hyperd by TCP."),
    ("--tlscert", "FILE", "Certificate to show to it."),
    ("--tlskey", "FILE", "Key of that certificate."),
    ("--token-file", "FILE", "Token to show to it."),
    ("--project", "NAME", "A project of its; $HYPER_PROJECT and `hyperctl --project` go before it."),
    ("--kubeconfig", "FILE", "How a cluster is reached [default: $KUBECONFIG, or ~/.kube/config]."),
    ("--kube-context", "NAME", "A context in the kubeconfig [default: the one in use]."),
    ("--namespace", "NAME", "Of the cluster [default: the kubeconfig's]."),
    ("--runtime-class", "NAME", f"Of the Pods that are made there [default: {RUNTIME_CLASS}]."),
)


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What a context says."""
    text = "A cluster of Kubernetes: run, ps, logs, exec, rm and pod are for its Pods."
    command = click.option("--kubernetes", is_flag=True, help=text)(command)
    for name, metavar, text in reversed(_OPTIONS):
        command = click.option(name, metavar=metavar, help=text)(command)
    return command


def _document(before: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A context with what the flags say in place of what was said before.

    :raise InvalidArgument: they are of a hyperd and of a cluster, or of none.
    """
    of_cluster = {key: given[flag] for flag, key in _CLUSTER.items() if given[flag] is not None}
    if path := of_cluster.get("kubeconfig"):
        of_cluster["kubeconfig"] = os.path.abspath(path)
    of_hyperd = {key: os.path.abspath(given[flag]) for flag, key in _FILES.items() if given[flag]}
    if host := given["host"]:
        of_hyperd["host"] = host if host.startswith("tcp://") else os.path.abspath(host.removeprefix("unix://"))
    if given["project"]:
        of_hyperd["project"] = given["project"]
    found = {key: value for key, value in before.items() if key != "description"}
    if of_cluster or given["kubernetes"]:
        found["kubernetes"] = {**found.get("kubernetes", {}), **of_cluster}
    found |= of_hyperd
    if "kubernetes" in found and len(found) > 1:
        raise InvalidArgument("a context is a hyperd or a cluster, not both", hint="leave the flags of one out")
    if not found.get("host") and "kubernetes" not in found:
        raise InvalidArgument("a context says where to go", hint="give --host, or --kubernetes")
    text = before.get("description", "") if given["description"] is None else given["description"]
    return {"description": text, **found} if text else found


@context.command()
@_options
@click.argument("name")
def create(name: str, **given: Any) -> None:
    """Name a hyperd, or a cluster."""
    contexts = Contexts()
    if not _NAME.fullmatch(name) or name == DEFAULT:
        raise InvalidArgument(f"{name!r} is no name of a context", hint="use letters, digits, and _ . + -")
    if name in contexts.all:
        raise Conflict(f"there is a context {name!r}", hint="change it with `hyperctl context update`")
    contexts.all[name] = _document({}, given)
    contexts.write()
    print(name)


@context.command()
@_options
@click.argument("name")
def update(name: str, **given: Any) -> None:
    """Change what a context says; what is not given stays."""
    contexts = Contexts()
    if name == DEFAULT:
        raise InvalidArgument("the default context says nothing", hint="make another one")
    contexts.all[name] = _document(contexts.get(name), given)
    contexts.write()
    print(name)


def _rows(contexts: Contexts) -> list[dict[str, Any]]:
    """As documents, for tables and templates."""
    found = {DEFAULT: {"description": "this host's hyperd, or $HYPER_HOST"}, **contexts.all}
    return [
        {
            "name": name, "current": name == contexts.chosen, "description": each.get("description", ""),
            "kind": "kubernetes" if "kubernetes" in each else "hyperd", "endpoint": _endpoint(each),
        }
        for name, each in sorted(found.items())
    ]  # fmt: skip


def _endpoint(each: dict[str, Any]) -> str:
    if "kubernetes" not in each:
        return str(each.get("host", ""))
    parts = (each["kubernetes"].get(key, "") for key in ("kubeconfig", "context", "namespace"))
    return " ".join(filter(None, parts))


@context.command()
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
def ls(quiet: bool, format_: str) -> None:
    """List contexts; a star is at the one in use."""
    rows = _rows(Contexts())
    if quiet:
        print(*(row["name"] for row in rows), sep="\n")
        return

    def cells(row: dict[str, Any]) -> list[str]:
        return [row["name"] + (" *" if row["current"] else ""), row["description"], row["kind"], row["endpoint"]]

    show_list(rows, format_, ["NAME", "DESCRIPTION", "KIND", "ENDPOINT"], cells)


@context.command()
def show() -> None:
    """Print the name of the context in use."""
    print(Contexts().chosen)


@context.command()
@click.argument("name")
def use(name: str) -> None:
    """Let commands be for a context; `default` for none."""
    contexts = Contexts()
    contexts.get(name)
    contexts.current = name
    contexts.write()
    print(name)
    for variable in ("HYPER_HOST", "HYPER_CONTEXT"):
        if os.environ.get(variable):
            print(f"hyperctl: {variable} is set, and goes before it: unset {variable}", file=sys.stderr)


@context.command()
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
@click.argument("names", nargs=-1)
def inspect(names: tuple[str, ...], format_: str) -> None:
    """Show all that contexts say; without a name, the one in use."""
    contexts = Contexts()
    show_details([{"name": name, **contexts.get(name)} for name in names or (contexts.chosen,)], format_)


@context.command()
@click.option("-f", "--force", is_flag=True, help="Also the one in use, and none of that name.")
@click.argument("names", nargs=-1, required=True)
def rm(names: tuple[str, ...], force: bool) -> int:
    """Forget contexts."""
    contexts = Contexts()

    def remove(name: str) -> None:
        if name == DEFAULT:
            raise InvalidArgument("the default context cannot be removed", hint="name another one")
        try:
            contexts.get(name)
        except NotFound:
            if force:
                return
            raise
        if name == contexts.current:
            if not force:
                raise Conflict(f"the context {name!r} is in use", hint="use another one first, or give -f")
            contexts.current = DEFAULT
        del contexts.all[name]
        contexts.write()

    return for_each(names, remove)
