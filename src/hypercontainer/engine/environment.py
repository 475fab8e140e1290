# SPDX-License-Identifier: Apache-2.0
"""What of a container's process is known only when its pod runs: addresses, `$(NAME)`, the user it runs as."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from ..errors import InvalidArgument
from ..model.specs import ContainerSpec
from ..model.status import Pod
from ..network.backend import Link

# https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
_REFERENCE = re.compile(r"\$(?:\$|\(([A-Za-z_.-][A-Za-z0-9_.-]*)\))")


def addresses(pod: Pod, links: Sequence[Link]) -> dict[str, str]:
    """The values of `EnvField` that are known: the pod's own address, and the host's as the pod sees it."""
    known = [link for link in links if link.addresses]
    if not known:
        return {"podIP": "127.0.0.1"} if pod.spec.network == "none" else {}
    own = next((a for link in known for a in link.addresses if ":" not in a), known[0].addresses[0])
    gateway = next((g for link in known for g in link.gateways), "")
    return {"podIP": own.partition("/")[0], **({"hostIP": gateway} if gateway else {})}


def resolved(spec: ContainerSpec, known: dict[str, str]) -> ContainerSpec:
    """The specification with its fields filled in and its `$(NAME)` replaced.

    :raise InvalidArgument: when it asks for an address that is not known before the pod runs.
    """
    if not (spec.env_fields or spec.expand):
        return spec
    env: dict[str, str] = {}
    for entry in spec.env:
        name, _, value = entry.partition("=")
        if name in spec.env_fields:
            if spec.env_fields[name] not in known:
                raise InvalidArgument(
                    f"the variable {name} asks for the pod's {spec.env_fields[name]}, "
                    "which its network does not tell before it runs",
                    hint="leave it out, or use another network",
                )
            value = known[spec.env_fields[name]]
        env[name] = expand(value, env) if spec.expand else value
    if not spec.expand:
        return msgspec.structs.replace(spec, env=[f"{k}={v}" for k, v in env.items()])
    words = {
        k: [expand(word, env) for word in v]
        for k, v in (("command", spec.command), ("entrypoint", spec.entrypoint))
        if v is not None
    }
    return msgspec.structs.replace(spec, env=[f"{k}={v}" for k, v in env.items()], **words)


def expand(text: str, values: dict[str, str]) -> str:
    """`$(NAME)` by its value, an unknown one as it is; `$$` is a dollar sign, as Kubernetes has it."""
    return _REFERENCE.sub(lambda m: "$" if m[1] is None else values.get(m[1], m[0]), text)


def user_of(spec: ContainerSpec, image_user: str) -> str:
    """Who the process runs as; a group alone goes with the image's user.

    :raise InvalidArgument: when it must not be root, and is or may be.
    """
    user = spec.user or image_user
    if spec.user.startswith(":"):
        user = (image_user.partition(":")[0] or "0") + spec.user
    if spec.non_root:
        name = user.partition(":")[0]
        if name in ("", "root") or (name.isdecimal() and int(name) == 0):
            raise InvalidArgument(
                f"container {spec.name or spec.image} must not run as root, and would",
                hint="give it a user (runAsUser)",
            )
        if not name.isdecimal():
            raise InvalidArgument(
                f"container {spec.name or spec.image} must not run as root, "
                f"and the image names its user {name!r} without a number",
                hint="give it a user by its number (runAsUser)",
            )
    return user
