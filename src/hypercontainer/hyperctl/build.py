# SPDX-License-Identifier: Apache-2.0
"""build: an image of a Dockerfile."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from ..client.api import Client
from ..client.base import raise_known
from ..errors import HyperError, InvalidArgument, Unavailable
from ..model.reference import parse_reference
from ..model.units import parse_size
from .buildbases import take_bases
from .buildcontext import OUTSIDE, BuildContext, open_context
from .buildoutput import Output, cache_sources, cache_target, parse_output
from .buildprogress import NO_SPACE, OTHER_PROCESSOR, Progress, excerpt, waiting
from .context import client
from .pulling import push_image

if TYPE_CHECKING:
    from ..client.transport import Response
    from .session.grpc import Handler

_FULL = "the builder's disk may be full: `hyperctl builder prune --all`, or raise `cache` of [builder] in hyperd.toml"
_FOREIGN = (
    "RUN is a program of the image's platform, and the builder runs those of its own host only: "
    "build there, or COPY what a stage of FROM --platform=$BUILDPLATFORM has made"
)
_SYNTAX = ("# syntax", "#syntax")
_ASKED = ("type=secret", "type=ssh")


@click.command()
@click.option("-t", "--tag", "tags", multiple=True, metavar="NAME[:TAG]", help="Name of the image; may be repeated.")
@click.option("-f", "--file", "dockerfile", default="", help="The Dockerfile, - for stdin [default: PATH/Dockerfile].")
@click.option("--build-arg", "build_args", multiple=True, metavar="NAME[=VALUE]", help="Value of an ARG.")
@click.option("--target", default="", help="The stage to build.")
@click.option("--platform", default="", help="Platform, such as linux/amd64.")
@click.option("--label", "labels", multiple=True, metavar="NAME[=VALUE]", help="Set a label.")
@click.option("--add-host", "hosts", multiple=True, metavar="NAME:IP", help="A line of /etc/hosts for RUN.")
@click.option("--network", default="", help="Network of RUN: host (the builder's own), bridge or none [host].")
@click.option("--shm-size", default="", help="Size of /dev/shm for RUN.")
@click.option("--secret", "secrets", multiple=True, metavar="id=NAME[,src=PATH|,env=NAME]",
              help="What RUN --mount=type=secret sees.")  # fmt: skip
@click.option("--ssh", multiple=True, metavar="default|NAME[=SOCKET]", help="An SSH agent for RUN --mount=type=ssh.")
@click.option("-o", "--output", "outputs", multiple=True, metavar="DIR|-|type=KIND[,dest=PATH]",
              help="Where the result goes: local, tar, oci, docker, registry [image].")  # fmt: skip
@click.option("--push", is_flag=True, help="Push what was built, by its names.")
@click.option("--load", is_flag=True, hidden=True)
@click.option("--cache-from", multiple=True, metavar="IMAGE", help="An image whose layers may be used again.")
@click.option("--cache-to", multiple=True, metavar="type=inline", help="Have the image carry what --cache-from needs.")
@click.option("--no-cache", is_flag=True, help="Run every step anew.")
@click.option("--pull", is_flag=True, help="Ask for newer versions of the images it begins with.")
@click.option("--iidfile", type=click.Path(), help="Write the image's id to a file.")
@click.option("--metadata-file", type=click.Path(), help="Write what was built to a file, as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print the image's id only.")
@click.option("--progress", type=click.Choice(["auto", "plain", "tty", "quiet", "rawjson"]), default="auto",
              help="How to tell what happens: auto is plain.")  # fmt: skip
@click.argument("path", metavar="PATH|URL|-")
def build(path: str, dockerfile: str, **given: Any) -> None:
    """Build an image of a Dockerfile and a context: a directory, a git or HTTP URL, or a tar on stdin.

    It is built by BuildKit, in a virtual machine of its own, which stays for some minutes; its cache stays longer.
    """
    output, tags = parse_output(given["outputs"], push=given["push"]), given["tags"]
    if output.push and not tags:
        raise InvalidArgument("what is pushed needs a name", hint="name it with -t REGISTRY/NAME")
    quiet = given["quiet"] or given["progress"] == "quiet"
    context = open_context(path, dockerfile)
    arguments = dict(_pairs(given["build_args"], environment=True))
    settings = _settings(given, arguments)
    services = _services(context, given, output)
    hyperd = client()
    take_bases(hyperd, context, arguments, pull=given["pull"], platform=given["platform"], quiet=quiet)
    query = [("t", t) for t in tags] + [("extrahosts", _host(h)) for h in given["hosts"]]
    query += [(k, v) for k, v in {**context.query, **settings, "outputs": output.query()}.items() if v]
    told = "quiet" if quiet else given["progress"]
    with waiting(quiet=quiet or told == "rawjson") as answered, _session(hyperd, services, output) as id_:
        response = hyperd.open("POST", f"/build?{urlencode(query + id_)}", body=context.body or b"")
        answered()
        image = _follow(response, context, told, made=output.in_store)
    output.save(hyperd, tags[0] if tags else image)
    for name in tags if output.push else ():
        push_image(hyperd, name, quiet=quiet)
    _tell(image, tags, given)
    if quiet and image and not output.to_stdout:
        print(image)


def _settings(given: dict[str, Any], arguments: dict[str, str]) -> dict[str, str]:
    """What dockerd reads of a build's query."""
    sources = cache_sources(given["cache_from"])
    if cache_target(given["cache_to"]):
        arguments = {**arguments, "BUILDKIT_INLINE_CACHE": "1"}
    return {
        "version": "2", "buildargs": json.dumps(arguments) if arguments else "", "target": given["target"],
        "platform": given["platform"], "nocache": "1" if given["no_cache"] else "",
        "labels": json.dumps(dict(_pairs(given["labels"]))) if given["labels"] else "",
        "cachefrom": json.dumps(sources) if sources else "",
        "networkmode": given["network"], "shmsize": str(parse_size(given["shm_size"])) if given["shm_size"] else "",
    }  # fmt: skip


def _pairs(given: Iterable[str], *, environment: bool = False) -> Iterator[tuple[str, str]]:
    """`NAME=VALUE`; without a value it is this environment's, or none."""
    for text in given:
        name, equals, value = text.partition("=")
        if environment and not equals:
            if name not in os.environ:
                continue
            value = os.environ[name]
        yield name, value


def _host(given: str) -> str:
    """NAME:IP or NAME=IP, as dockerd takes it. :raise InvalidArgument: it is neither."""
    name, equals, address = given.partition("=")
    if not equals:
        name, equals, address = given.partition(":")
    if not name or not address:
        raise InvalidArgument(f"--add-host {given}: it is not NAME:IP")
    return f"{name}:{address.removeprefix('[').removesuffix(']')}"


def _services(context: BuildContext, given: dict[str, Any], output: Output) -> dict[str, Handler] | None:
    """What the builder may ask this client during the build, by path; None: it has nothing to ask.

    :raise HyperError: a secret or an agent is not there.
    """
    syntax = context.dockerfile.lstrip("\ufeff \r\n\t").lower().startswith(_SYNTAX)  # an image that it pulls itself
    asks = any(kind in context.dockerfile for kind in _ASKED)  # for what is not given, perhaps, which it is told
    if not (output.by_session or given["secrets"] or given["ssh"] or syntax or asks):
        return None
    from .session import secrets  # HTTP/2 is not imported for other builds

    return secrets.services(secrets.secret_values(given["secrets"]), secrets.agents(given["ssh"]))


@contextlib.contextmanager
def _session(hyperd: Client, services: dict[str, Handler] | None, output: Output) -> Iterator[list[tuple[str, str]]]:
    """The connection by which it asks, and gives what is no image: the parameters that name it, if there is one."""
    if services is None:
        yield []
        return
    from .session import connection

    with output.taken() as taken, connection.session(hyperd, {**services, **taken}) as id_:
        yield [("session", id_)]


# -- what it tells --------------------------------------------------------------------------


def _tell(image: str, tags: tuple[str, ...], given: dict[str, Any]) -> None:
    """Files that other programs read. :raise HyperError: they cannot be written."""
    about = {"containerimage.config.digest": image, "containerimage.digest": image} if image else {}
    if image and tags:
        about["image.name"] = ",".join(parse_reference(tag).full for tag in tags)
    try:
        if given["iidfile"] and image:
            Path(given["iidfile"]).write_text(image)
        if given["metadata_file"]:
            Path(given["metadata_file"]).write_text(json.dumps(about, indent=2) + "\n")
    except OSError as error:
        raise HyperError(f"cannot write {error.filename}: {error.strerror}") from error


def _follow(response: Response, context: BuildContext, progress: str, *, made: bool) -> str:
    """Print what happens; the image's id, "" where the build is not to make one.

    :raise HyperError: why there is none.
    """
    told, id_ = Progress(), ""
    for line in response.lines():
        if not line.strip():
            continue
        if progress == "rawjson":
            print(line.decode(errors="replace"), flush=True)
        document = json.loads(line)
        if "error" in document:
            raise _failure(document["error"], context, told)
        aux = document.get("aux")
        if isinstance(aux, dict) and "ID" in aux:
            id_ = aux["ID"]
        elif document.get("id") == "moby.buildkit.trace" and progress in ("auto", "plain", "tty"):
            told.trace(aux)
    if made and not id_:
        raise Unavailable("hyperd closed the connection during the build", hint="see its log, and try again")
    return id_


def _failure(error: Any, context: BuildContext, told: Progress) -> HyperError:
    """What the builder says, or hyperd; an error of syntax with the lines that it is about."""
    if isinstance(error, dict):
        raise_known(error)
    name = context.query.get("dockerfile", OUTSIDE)
    if lines := excerpt(str(error), context.dockerfile, "Dockerfile" if name == OUTSIDE else name):
        print(lines, file=sys.stderr, flush=True)
    return HyperError(f"the build failed: {error}", hint=_hint(str(error).lower(), told))


def _hint(error: str, told: Progress) -> str | None:
    if told.full or NO_SPACE in error:
        return _FULL
    return _FOREIGN if told.foreign or OTHER_PROCESSOR in error else None
