# SPDX-License-Identifier: Apache-2.0
"""A container's security context, as the engine's specification says it. It is in force in the virtual machine."""

from __future__ import annotations

from typing import Any

from ..errors import InvalidArgument, InvalidState, Unsupported
from ..seccomp import TEXT_MAX
from . import api
from .sandbox_request import check_namespaces

_DEFAULT = ("runtime/default", "docker/default")
_UNCONFINED = ("", "unconfined")
_ID_MAX = (1 << 32) - 2  # the last number means none (setresuid(2))


def fields_of(context: Any) -> dict[str, Any]:
    """Fields of a ContainerSpec.

    :raise InvalidArgument: it asks for what is the node's, or contradicts itself. :raise Unsupported: what we lack.
    """
    _check(context)
    ids = [*context.supplemental_groups, context.run_as_user.value, context.run_as_group.value]
    if wrong := [n for n in ids if not 0 <= n <= _ID_MAX]:
        raise InvalidArgument(f"{wrong[0]} is the number of no user or group", hint=f"give 0 to {_ID_MAX}")
    return {
        "user": _user(context),
        "groups": [str(g) for g in context.supplemental_groups],
        "only_groups": context.supplemental_groups_policy == api.Strict,
        "cap_add": [*context.capabilities.add_capabilities, *context.capabilities.add_ambient_capabilities],
        "cap_ambient": list(context.capabilities.add_ambient_capabilities),
        "cap_drop": list(context.capabilities.drop_capabilities),
        "privileged": context.privileged,
        "read_only": context.readonly_rootfs,
        "no_new_privileges": context.no_new_privs,
        **_seccomp(context),
        "pid": _pid(context),
        **_hidden(context),
    }


def _hidden(context: Any) -> dict[str, list[str]]:
    """As it says, where it says anything: none are for `procMount: Unmasked`."""
    if context.privileged or not context.ByteSize():
        return {}
    return {"masked_paths": list(context.masked_paths), "readonly_paths": list(context.readonly_paths)}


def _check(context: Any) -> None:
    check_namespaces(context.namespace_options)
    if context.supplemental_groups_policy not in (api.Merge, api.Strict):
        raise InvalidArgument(f"there is no supplementalGroupsPolicy {context.supplemental_groups_policy}")
    kind = context.apparmor.profile_type if context.HasField("apparmor") else api.RuntimeDefault
    if kind == api.Localhost or context.apparmor_profile.startswith("localhost/"):
        raise Unsupported("AppArmor profiles of the node are not in force in a virtual machine")
    if context.privileged:
        return
    for path in (*context.masked_paths, *context.readonly_paths):
        if not path.startswith(("/proc/", "/sys/")):
            raise Unsupported(f"{path} cannot be masked, or be read-only: only paths below /proc and /sys can be")


def _user(context: Any) -> str:
    if context.HasField("run_as_user") and context.run_as_username:
        raise InvalidArgument("run_as_user and run_as_username are given both", hint="give one of them")
    user = str(context.run_as_user.value) if context.HasField("run_as_user") else str(context.run_as_username)
    if not context.HasField("run_as_group"):
        return user
    if not user:
        raise InvalidArgument("run_as_group is given without a user", hint="give run_as_user, too")
    return f"{user}:{context.run_as_group.value}"


def _seccomp(context: Any) -> dict[str, str]:
    """By the newer field where it is there; both absent is no filter, as CRI has it. Who is privileged has none."""
    if context.HasField("seccomp"):
        kind, name = context.seccomp.profile_type, context.seccomp.localhost_ref
    else:
        name = context.seccomp_profile_path
        kind = api.Localhost
        kind = api.RuntimeDefault if name in _DEFAULT else kind
        kind = api.Unconfined if name in _UNCONFINED else kind
    if kind == api.Localhost and not context.privileged:
        return {"seccomp_profile": _profile(name.removeprefix("localhost/"))}
    return {"seccomp": "default" if kind == api.RuntimeDefault else "unconfined"}


def _profile(name: str) -> str:
    """A file of the node's: a kubelet says where it is, below its own directory of profiles.

    :raise InvalidArgument: it says no path. :raise InvalidState: the file is not there, or is none.
    """
    if not name.startswith("/"):
        raise InvalidArgument(f"the seccomp profile {name!r} is no path of the node")
    try:
        with open(name, encoding="utf-8") as file:
            text = file.read(TEXT_MAX + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidState(f"the seccomp profile {name} of the node cannot be read: {_why(error)}") from None
    if not text:
        raise InvalidState(f"the seccomp profile {name} of the node is empty")
    return text


def _why(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is no text"


def _pid(context: Any) -> str:
    """ "" is as the sandbox says; a target is one of the same sandbox."""
    if not context.HasField("namespace_options"):
        return ""
    mode = context.namespace_options.pid
    if mode == api.TARGET:
        if not context.namespace_options.target_id:
            raise InvalidArgument("the PID namespace of a target has no target_id")
        return f"container:{context.namespace_options.target_id}"
    return "container" if mode == api.CONTAINER else "pod"
