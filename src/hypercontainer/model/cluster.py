# SPDX-License-Identifier: Apache-2.0
"""A cluster of Kubernetes in which projects are namespaces, and what its nodes tell of what they used: docs/caas.md."""

from __future__ import annotations

import re

from msgspec import field

from .base import Model
from .metering import Use

PREFIX = "hyper-"  # of the name of a project's namespace; its id follows, which nobody chooses
PROJECT = "hypercontainer.io/project"  # labels of it: the id, names, and the runtime class where a policy has one
PROJECT_NAME = "hypercontainer.io/project-name"
ORGANISATION = "hypercontainer.io/organisation"
RUNTIME_CLASS_OF = "hypercontainer.io/runtime-class"
_NAMESPACE = re.compile(r"hyper-([0-9a-f]{16})")


def namespace_of(project: str) -> str:
    """The name of a project's namespace, by its id."""
    return PREFIX + project


def project_of(namespace: str) -> str:
    """The id of the project whose namespace has this name; "" where it is no project's."""
    found = _NAMESPACE.fullmatch(namespace)
    return found[1] if found else ""


class EarlierLedger(Model, frozen=True, kw_only=True):
    """What a ledger was before it was put back from a backup."""

    ledger: str
    until: int  # the number of the last entry that both have


class LedgerPart(Model, frozen=True, kw_only=True):
    """Entries of a node's ledger that are of projects of another daemon's, in their order."""

    ledger: str  # which ledger it is: that of a node which is made anew is another one
    last: int  # the number up to which all are told
    end: int  # the number of the last entry that there is
    whole: int  # milliseconds since the epoch: what was used before that is in entries up to `end`
    entries: list[Use] = field(default_factory=list)
    before: str = ""  # the digest of the entry after which was asked; "" where there is none
    stands: str = ""  # the digest of the entry `last`
    earlier: list[EarlierLedger] = field(default_factory=list)  # the latest first


class Collected(Model, frozen=True, kw_only=True):
    """How far a ledger is taken over, or which one is one's own. A row beside what is used now."""

    ledger: str
    node: str  # where it was seen last
    cursor: int = 0  # the number of the last entry that was taken over
    whole: int = 0  # as in `LedgerPart`
    seen: int = 0  # milliseconds since the epoch
    stands: str = ""  # the digest of that entry
    since: int = 0  # milliseconds since the epoch: what was used before was taken over from an earlier ledger
    earlier: list[EarlierLedger] = field(default_factory=list)  # of one's own


class NodeInfo(Model, frozen=True, kw_only=True):
    """What is told of a node of the cluster."""

    name: str
    address: str
    ledger: str = ""
    entries: int = 0  # that were taken over, or passed over as they are of no project
    collected_at: str = ""  # "": not yet
    trouble: str = ""  # why it was not at the last look


class ClusterPod(Model, frozen=True, kw_only=True):
    """A Pod in a project's namespace."""

    name: str
    project: str = ""  # name
    node: str = ""  # "": none has it yet
    status: str = ""  # Pending, Running, Succeeded, Failed, Unknown, or Terminating
    images: list[str] = field(default_factory=list)
    runtime_class: str = ""
    created_at: str = ""
