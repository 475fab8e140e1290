# SPDX-License-Identifier: Apache-2.0
"""Containers that are run by a schedule: what is asked for, what is kept, and what is told of it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType, field

from .base import Model
from .principal import Scope, Tenant
from .specs import ContainerSpec

Concurrency = Literal["allow", "forbid", "replace"]
Count = Annotated[int, Meta(ge=0, le=1000)]
Seconds = Annotated[float, Meta(ge=0, le=10**8)]
Text = Annotated[str, Meta(max_length=200)]
LABEL, RUN_LABEL = "hypercontainer.cron", "hypercontainer.cron.run"  # of containers: its name, and the run's id
RUNS_MAX = 100  # that a job knows of


class CronRequest(Model, frozen=True, kw_only=True):
    """A job to make. `schedule` has five fields, as cron(5), or six, the first of them seconds; or a word, `@daily`."""

    name: str
    schedule: Text
    container: ContainerSpec
    timezone: Text = "UTC"  # of the IANA's database
    concurrency: Concurrency = "forbid"  # what if the run before goes on: run beside it, not at all, or in its place
    catch_up: bool = False  # one run for those that were missed while hyperd or the host was down
    keep: Count = 3  # containers that have ended, with their logs
    time_limit: Seconds = 0.0  # of a run, which is stopped then; 0: none
    paused: bool = False


class CronUpdate(Model, frozen=True, kw_only=True):
    """What of a job is to be another."""

    schedule: Text | UnsetType = UNSET
    timezone: Text | UnsetType = UNSET
    concurrency: Concurrency | UnsetType = UNSET
    catch_up: bool | UnsetType = UNSET
    keep: Count | UnsetType = UNSET
    time_limit: Seconds | UnsetType = UNSET
    paused: bool | UnsetType = UNSET


class CronRun(Model, frozen=True, kw_only=True):
    """One run, or why there was none (`error`)."""

    id: str
    by: Literal["schedule", "hand", "catch-up"]
    due: str  # moment
    ended: str = ""  # moment; "": it goes on
    container: str = ""  # its id; the container may be gone by now
    exit_code: int | None = None
    error: str = ""


class _Job(Model, frozen=True, kw_only=True):
    id: str
    name: str
    created_at: str
    schedule: str
    timezone: str
    container: ContainerSpec
    concurrency: Concurrency
    catch_up: bool
    keep: int
    time_limit: float
    paused: bool
    runs: list[CronRun] = field(default_factory=list)  # oldest first
    owner: str = ""


class Cron(_Job, frozen=True, kw_only=True):
    """A job, as it is kept."""

    seen: str  # moment up to which its schedule was gone through
    tenant: Tenant = UNSET
    scopes: list[Scope] = field(default_factory=list)  # of who made it, by which its containers are made


class CronInfo(_Job, frozen=True, kw_only=True):
    """What is told of a job."""

    next: str  # moment; "": it is paused, or never again
