# SPDX-License-Identifier: Apache-2.0
"""cron: containers that are run by a schedule."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote

import click
from msgspec import UNSET

from ..errors import InvalidArgument
from ..model.cron import CronInfo, CronRequest, CronRun, CronUpdate
from ..model.ids import short
from ..model.units import format_age, format_until, parse_duration
from .context import client, for_each
from .dockerflags import DockerCommand
from .options import container_options, spec_from
from .output import show, show_details
from .pulling import fetch_for
from .standard import print_made

_SETTINGS = {"ignore_unknown_options": False, "allow_interspersed_args": False, "help_option_names": ["--help"]}
_CONCURRENCY = click.Choice(["allow", "forbid", "replace"])


@click.group()
def cron() -> None:
    """Containers that are run by a schedule."""


def cron_route(name: str, rest: str = "") -> str:
    """Of a job, by its name or id."""
    return f"/crons/{quote(name, safe='')}{rest}"


@cron.command(cls=DockerCommand, context_settings=_SETTINGS)
@partial(container_options, name="Name of the job.")
@click.option("--schedule", required=True, metavar="'* * * * *'", help="As in crontab(5), or @hourly, @daily, ...")
@click.option("--timezone", default="UTC", show_default=True, help="Whose clock the schedule is by: Europe/Berlin.")
@click.option(
    "--concurrency", type=_CONCURRENCY, default="forbid", show_default=True,
    help="What if the run before goes on: run beside it, not at all, or in its place.",
)  # fmt: skip
@click.option("--catch-up", is_flag=True, help="One run for those that were missed while hyperd was down.")
@click.option("--keep", type=click.IntRange(0, 1000), default=3, show_default=True, help="Ended containers to keep.")
@click.option("--time-limit", default="0", metavar="DURATION", help="Stop a run that goes on for longer: 90s, 2h.")
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def create(
    image: str, command: tuple[str, ...], schedule: str, timezone: str, concurrency: Any, catch_up: bool, keep: int,
    time_limit: str, **options: Any,
) -> None:  # fmt: skip
    """Make a job, and print its id: IMAGE is run by the schedule, each time in a container of its own.

    Its name is that of --name; the flags of `run` say what its containers are.

        hyperctl cron create --name backup --schedule '30 3 * * *' -v data:/data backup-image
    """
    if not options["name"]:
        raise InvalidArgument("a job needs a name", hint="give --name NAME")
    c, name = client(), options.pop("name")
    spec = spec_from(image, command, {**options, "name": ""})
    fetch_for(c, spec, quiet=options["quiet"])
    request = CronRequest(
        name=name, schedule=schedule, container=spec, timezone=timezone, concurrency=concurrency, catch_up=catch_up,
        keep=keep, time_limit=parse_duration(time_limit),
    )  # fmt: skip
    print_made(c.call(CronInfo, "POST", "/crons", body=request).id, "the job")


@cron.command(name="ls")
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
@click.option("-f", "--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
def list_(quiet: bool, format_: str) -> None:
    """List jobs, when each was run last, and when it is due."""
    found = client().call(list[CronInfo], "GET", "/crons")
    if quiet:
        for job in found:
            print(job.name)
        return
    show(
        found, format_, ["NAME", "SCHEDULE", "TIME ZONE", "IMAGE", "LAST RUN", "STATUS", "NEXT"],
        lambda j: [
            j.name, j.schedule, j.timezone, j.container.image,
            f"{format_age(j.runs[-1].due)} ago" if j.runs else "never", _became(j.runs[-1]) if j.runs else "",
            "paused" if j.paused else _until(j.next),
        ],
    )  # fmt: skip


cron.add_command(list_, "list")


def _until(moment: str) -> str:
    return f"in {format_until(moment) or 'a moment'}" if moment else "never"


def _became(run: CronRun) -> str:
    if not run.ended:
        return "runs"
    return f"exited ({run.exit_code})" if run.exit_code is not None and not run.error else run.error


@cron.command()
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
@click.argument("name", nargs=-1, required=True)
def inspect(name: tuple[str, ...], format_: str) -> None:
    """Show all about jobs, as JSON."""
    c = client()
    show_details([c.call(CronInfo, "GET", cron_route(each)) for each in name], format_)


@cron.command()
@click.option("-f", "--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
@click.argument("name")
def history(name: str, format_: str) -> None:
    """List the runs of a job, newest first; `hyperctl logs CONTAINER` has the output of those that are kept."""
    found = client().call(CronInfo, "GET", cron_route(name)).runs
    show(
        list(reversed(found)), format_, ["DUE", "BY", "CONTAINER", "STATUS"],
        lambda r: [r.due[:19].replace("T", " "), r.by, short(r.container) if r.container else "", _became(r)],
    )  # fmt: skip


@cron.command()
@click.argument("name")
def run(name: str) -> None:
    """Run a job now, whatever its schedule says, and print the run's id; its container is called NAME-RUN."""
    print_made(client().call(CronRun, "POST", cron_route(name, "/run")).id, "the run")


@cron.command()
@click.argument("name", nargs=-1, required=True)
def pause(name: tuple[str, ...]) -> int:
    """Do not run jobs by their schedules any more; a run that goes on goes on."""
    return _change_all(name, CronUpdate(paused=True))


@cron.command()
@click.argument("name", nargs=-1, required=True)
def resume(name: tuple[str, ...]) -> int:
    """Run jobs by their schedules again, from now on."""
    return _change_all(name, CronUpdate(paused=False))


def _change_all(names: tuple[str, ...], update: CronUpdate) -> int:
    c = client()
    return for_each(names, lambda name: c.call(CronInfo, "POST", cron_route(name, "/update"), body=update))


@cron.command()
@click.option("--schedule", metavar="'* * * * *'", help="As in crontab(5), or @hourly, @daily, ...")
@click.option("--timezone", help="Whose clock the schedule is by: Europe/Berlin.")
@click.option("--concurrency", type=_CONCURRENCY, help="What if the run before goes on.")
@click.option("--catch-up/--no-catch-up", default=None, help="One run for those that were missed.")
@click.option("--keep", type=click.IntRange(0, 1000), help="Ended containers to keep.")
@click.option("--time-limit", metavar="DURATION", help="Stop a run that goes on for longer; 0: never.")
@click.argument("name")
def update(name: str, time_limit: str | None, **options: Any) -> None:
    """Change when and how a job is run."""
    given = {key: UNSET if value is None else value for key, value in options.items()}
    limit = UNSET if time_limit is None else parse_duration(time_limit)
    client().call(CronInfo, "POST", cron_route(name, "/update"), body=CronUpdate(time_limit=limit, **given))


@cron.command()
@click.option("-f", "--force", is_flag=True, help="Also while a run goes on, which is ended.")
@click.argument("name", nargs=-1, required=True)
def rm(name: tuple[str, ...], force: bool) -> int:
    """Remove jobs, with the containers of their runs."""
    c = client()
    return for_each(name, lambda each: c.do("DELETE", cron_route(each), {"force": force}))
