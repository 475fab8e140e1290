# SPDX-License-Identifier: Apache-2.0
"""hyperctl: the group of verbs."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, ClassVar

import click

from .. import __version__
from .names import complete_contexts, complete_names

# verb -> module and attribute; nothing is imported before it is used.
VERBS = {
    "attach": "attach:attach",
    "audit": "audit:audit",
    "backup": "backup:backup",
    "billing": "billing:billing",
    "build": "build:build",
    "builder": "builder:builder",
    "cluster": "clusters:cluster",
    "commit": "changes:commit",
    "completion": "completion:completion",
    "container": "groups:container",
    "context": "contexts:context",
    "cp": "cp:cp",
    "create": "run:create",
    "diff": "changes:diff",
    "docker-host": "system:docker_host",
    "doctor": "system:doctor",
    "e2b": "e2b:e2b",
    "events": "system:events",
    "exec": "exec:exec_",
    "export": "changes:export",
    "factory": "factory:factory",
    "history": "images:history",
    "image": "groups:image",
    "image-prune": "images:image_prune",
    "images": "images:images",
    "cron": "cron:cron",
    "sg": "sg:sg",
    "fip": "fip:fip",
    "deployment": "deployments:deployment",
    "import": "bundles:import_",
    "info": "system:info",
    "inspect": "inspect:inspect",
    "kernel": "kernel:kernel",
    "kill": "lifecycle:kill",
    "list": "listing:list_",
    "load": "bundles:load",
    "login": "login:login",
    "logout": "login:logout",
    "logs": "logs:logs",
    "mcp": "mcp:mcp",
    "network": "networks:network",
    "organisation": "organisations:organisation",
    "pause": "lifecycle:pause",
    "pod": "pods:pod",
    "ports": "ports:ports",
    "project": "projects:project",
    "ps": "listing:ps",
    "pull": "images:pull",
    "push": "images:push",
    "quota": "quotas:quota",
    "rename": "lifecycle:rename",
    "restart": "lifecycle:restart",
    "rm": "lifecycle:rm",
    "rmi": "images:rmi",
    "run": "run:run",
    "sandbox": "sandboxes:sandbox",
    "save": "bundles:save",
    "search": "images:search",
    "service": "ports:service",
    "size": "quotas:size",
    "snapshot": "snapshots:snapshot",
    "start": "lifecycle:start",
    "stats": "listing:stats",
    "stop": "lifecycle:stop",
    "system": "df:system",
    "tag": "images:tag",
    "token": "tokens:token",
    "top": "listing:top",
    "unpause": "lifecycle:unpause",
    "update": "update:update",
    "usage": "usage:usage",
    "user": "users:user",
    "version": "system:version",
    "volume": "volumes:volume",
    "wait": "lifecycle:wait",
}
# Summaries, so that the overview need not import every verb.
HELP = {
    "attach": "Attach to a container's main process",
    "audit": "Show who asked for what",
    "backup": "The whole state of hyperd as one file",
    "billing": "What use costs: prices, credits, budgets, invoices",
    "build": "Build an image of a Dockerfile",
    "builder": "What builds images: its cache, and its virtual machine",
    "cluster": "Projects in a cluster of Kubernetes: its nodes, and their Pods",
    "commit": "Make an image of a container",
    "completion": "Print a completion script for your shell",
    "container": "Manage containers: Docker's group of their verbs",
    "context": "Names for hyperds and clusters that commands are for",
    "cp": "Copy files between a container and this host",
    "create": "Create a container, do not start it",
    "diff": "Show what a container changed in its image's files",
    "docker-host": "Print where Docker's clients reach this daemon, for DOCKER_HOST",
    "doctor": "Check what this host has of what is needed",
    "e2b": "Serve programs that were written for E2B's sandboxes",
    "events": "Print what happens, as it happens",
    "exec": "Run a further command in a running container",
    "sg": "Security groups: by what pods are reached, and what they reach",
    "cron": "Containers that are run by a schedule",
    "deployment": "Replicas of a container behind one address",
    "export": "Write a container's root file system as a tar archive",
    "factory": "Virtual machines that are started ahead of time",
    "fip": "Floating addresses",
    "history": "Show how an image was made",
    "image": "Manage images: Docker's group of their verbs",
    "image-prune": "Remove images that nothing needs",
    "images": "List images",
    "import": "Make an image of an archive of files",
    "info": "Show the daemon and its host",
    "inspect": "Show all about containers, pods, volumes or images",
    "kernel": "Build the guest kernel",
    "kill": "Send a signal to containers",
    "list": "List pods, containers or VMs",
    "load": "Take images from an archive",
    "login": "Log in to a registry",
    "logout": "Forget a registry's credentials",
    "logs": "Show a container's output",
    "mcp": "Sandboxes as tools of a language model, by the Model Context Protocol",
    "network": "Networks that pods share",
    "organisation": "Organisations: who pays, and who does what in their projects",
    "pause": "Freeze all processes of containers",
    "pod": "Several containers in one virtual machine",
    "ports": "List or change published ports",
    "project": "Projects: what containers, volumes, networks and tokens are in",
    "ps": "List containers",
    "pull": "Pull an image",
    "push": "Push an image to a registry",
    "quota": "Show how much you may have, and have",
    "rename": "Rename a container",
    "restart": "Stop and start containers",
    "rm": "Remove containers",
    "rmi": "Remove images",
    "run": "Run a command in a new container",
    "sandbox": "What the SDK, E2B's clients, language models and agents have made",
    "save": "Write images as an archive",
    "search": "Say where images are found",
    "service": "List or change the services of a pod",
    "size": "Sizes of machines, by name",
    "snapshot": "Pods that were saved while they ran",
    "start": "Start containers or pods",
    "stats": "Show the use of resources",
    "stop": "Stop containers",
    "system": "Disk space of all, and the verbs about the daemon",
    "tag": "Give an image a further name",
    "token": "Tokens by which others use this daemon",
    "top": "Show the processes of a container",
    "unpause": "Thaw all processes of containers",
    "update": "Change limits of containers, also while they run",
    "usage": "Show what was used: seconds of pods, storage, bytes sent",
    "user": "Users: people, whom organisations have as members",
    "version": "Show the versions of all parts",
    "volume": "Named volumes, which outlive containers and pods",
    "wait": "Wait until containers stop, print their exit codes",
}


_OF_ANY = ("completion", "container", "context", "image")  # verbs that a cluster's context changes nothing of


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    verbs: ClassVar[dict[str, str]] = VERBS
    summaries: ClassVar[dict[str, str]] = HELP

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verbs = self.verbs
        if isinstance(ctx.find_root().obj, dict) and cmd_name not in _OF_ANY:
            from .cluster import verbs_of

            verbs = verbs_of(self.verbs)
        if cmd_name not in verbs:
            return None
        module, attribute = verbs[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(f".{module}", __package__), attribute)
        command.name = cmd_name
        complete_names(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            close = difflib.get_close_matches(args[0], self.verbs, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; see `{ctx.command_path} --help`"
            raise click.UsageError(f"unknown command {args[0]!r}{hint}", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(self.summaries.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="hyperctl %(version)s")
@click.option(
    "-H",
    "--host",
    metavar="SOCKET|tcp://ADDRESS:PORT",
    help="Where hyperd is [default: $HYPER_HOST, or the system's or user's own socket].",
)
@click.option(
    "--context",
    metavar="NAME",
    shell_complete=complete_contexts,
    help="The hyperd or cluster of a context [default: $HYPER_CONTEXT, or the one in use].",
)
@click.option("--tlscacert", metavar="FILE", help="CA of a hyperd by TCP [default: $HYPER_TLSCACERT].")
@click.option("--tlscert", metavar="FILE", help="Certificate to show to it [default: $HYPER_TLSCERT].")
@click.option("--tlskey", metavar="FILE", help="Key of that certificate [default: $HYPER_TLSKEY].")
@click.option("--token-file", metavar="FILE", help="Token to show to it [default: $HYPER_TOKEN, or $HYPER_TOKEN_FILE].")
@click.option("--project", metavar="NAME", help="The project that is meant [default: $HYPER_PROJECT, or the only one].")
@click.pass_context
def cli(ctx: click.Context, /, host: str | None, context: str | None, project: str | None, **tls: str | None) -> None:
    """Run container images as virtual machines that feel like containers."""
    if not isinstance(ctx.obj, dict):  # of a cluster: `run` has it
        ctx.obj = host
    if project is not None:
        os.environ["HYPER_PROJECT"] = project
    for name, given in tls.items():
        if given:  # for `client.tls`, wherever it connects
            os.environ[f"HYPER_{name.upper()}"] = given
    if tls["token_file"]:
        os.environ.pop("HYPER_TOKEN", None)


def _verb(args: list[str]) -> str:
    return next((a for a in args if a in VERBS and a != "container"), "")


def run(args: list[str], cluster: dict[str, Any] | None = None) -> int:
    """The exit status. With a cluster of Kubernetes its verbs are meant.

    :raise HyperError: for the entry point to print.
    """
    try:
        result = cli.main(args, prog_name="hyperctl", standalone_mode=False, obj=cluster)
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return 2
    except click.ClickException as error:
        message = error.format_message().rstrip(".")
        says_so = "--help`" in message  # where to look is in it already
        usage = (
            f"\nsee `{error.ctx.command_path} --help`"
            if isinstance(error, click.UsageError) and error.ctx and not says_so
            else ""
        )
        print(f"hyperctl: {message}{usage}", file=sys.stderr)
        return 125 if _verb(args) == "run" else 2
    except click.Abort:
        return 130
