# SPDX-License-Identifier: Apache-2.0
"""The policy of the project that asks: what it refuses, it refuses before anything is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from ..errors import PermissionDenied, Unavailable
from ..images.trust import Trust
from ..model.pods import PodSpec
from ..model.policy import Policy
from ..model.reference import Source, parse_reference
from ..model.signals import capability_mask
from ..model.specs import ContainerSpec, ExecSpec
from .principal import current

_ANYTHING = Policy()


def _policy() -> Policy:
    return current().policy or _ANYTHING


def _refused(what: str, setting: str) -> PermissionDenied:
    return PermissionDenied(
        f"the project's policy ({setting}) does not allow {what}",
        hint="`hyperctl project inspect` shows it; the administrator changes it",
    )


def check_pulled(source: Source) -> None:
    """:raise PermissionDenied: the policy has no such image."""
    allowed = _policy().images
    if allowed is None or source.transport == "builtin":
        return
    name = parse_reference(source.location).full if source.transport == "docker" else ""
    if not any(name and fnmatchcase(name, pattern) for pattern in allowed):
        raise _refused(f"the image {name or source.location}", f"images: {', '.join(allowed) or 'none'}")


def trust(own: Trust, named: Mapping[str, Trust]) -> Trust:
    """Whose images are taken of who asks: the host's `own`, or that of the project's policy.

    :raise Unavailable: hyperd's configuration does not have it any more.
    """
    name = _policy().signatures
    if name and name not in named:
        raise Unavailable(f"the project's policy asks for images that {name!r} of `image_policies` takes, and hyperd's "
                          "configuration has none of this name", hint="the administrator puts it back")  # fmt: skip
    return named[name] if name else own


def check_host_path(what: str) -> None:
    """:raise PermissionDenied: the policy has nothing of the host's files."""
    if not _policy().host_paths:
        raise _refused(what.rstrip(","), "hostPaths")


def check_brought() -> None:
    """:raise PermissionDenied: the policy takes no images that come otherwise."""
    if not _policy().builds:
        raise _refused("images that are built, committed, loaded or imported", "builds")


def check_container(spec: ContainerSpec) -> None:
    """:raise PermissionDenied: the policy refuses something of it."""
    policy = _policy()
    if spec.privileged and not policy.privileged:
        raise _refused("privileged containers", "privileged")
    _check_capabilities(policy, [*spec.cap_add, *spec.cap_ambient], privileged=spec.privileged)
    if policy.isolation == "fresh" and spec.isolation != "fresh" and not spec.pod:
        raise _refused(f"the isolation {spec.isolation}", "isolation: fresh")


def check_exec(spec: ExecSpec, of: ContainerSpec) -> None:
    """`of` is its container, which may be from before the policy.

    :raise PermissionDenied: it would have more than that, and than the policy allows.
    """
    policy, privileged = _policy(), spec.privileged and not of.privileged
    if privileged and not policy.privileged:
        raise _refused("privileged processes", "privileged")
    has = capability_mask(["ALL"] if of.privileged else of.cap_add, []) | capability_mask([], [])
    asked = [n for n in (*(spec.capabilities or ()), *(spec.ambient or ())) if capability_mask([n], ["ALL"]) & ~has]
    _check_capabilities(policy, asked, privileged=privileged)


def _check_capabilities(policy: Policy, names: Iterable[str], *, privileged: bool) -> None:
    if policy.capabilities is None:
        return
    allowed, setting = set(map(_bare, policy.capabilities)), f"capabilities: {', '.join(policy.capabilities) or 'none'}"
    if privileged and "ALL" not in allowed:
        raise _refused("all capabilities, which what is privileged has", setting)
    for name in names:
        if _bare(name) not in allowed:
            raise _refused(f"the capability {name}", setting)


def check_pod(spec: PodSpec) -> None:
    """:raise PermissionDenied: as `check_container`."""
    if _policy().isolation == "fresh" and spec.isolation != "fresh":
        raise _refused(f"the isolation {spec.isolation}", "isolation: fresh")


def check_driver(name: str) -> None:
    """:raise PermissionDenied: the policy does not have the driver, which was asked for or is the daemon's default."""
    allowed = _policy().drivers
    if allowed is not None and name not in allowed:
        raise _refused(f"the driver {name}", f"drivers: {', '.join(allowed) or 'none'}")


def _bare(capability: str) -> str:
    return capability.upper().removeprefix("CAP_")
