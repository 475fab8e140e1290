# SPDX-License-Identifier: Apache-2.0
"""A file of any known kind into a podfile: our own, a Kubernetes Pod, a compose file, an App Container pod."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ..errors import InvalidArgument
from . import strict
from .document import Container, Podfile, Secret


@dataclass(frozen=True)
class Loaded:
    """A podfile, and what of the file has no counterpart in it."""

    podfile: Podfile
    unmapped: list[str] = field(default_factory=list)


def load(path: str, *, name: str = "") -> Loaded:
    """Read a file (- is stdin). `name` is the pod's, and overrides what the file says.

    :raise InvalidArgument: with what is wrong in it, and where.
    """
    documents = _documents(path)
    base = Path(path).resolve().parent if path != "-" else Path.cwd()
    kinds = {d.get("kind") for d in documents}
    if len(documents) == 1 and documents[0].get("acKind") == "PodManifest":
        from .appc import from_manifest

        loaded = from_manifest(documents[0])
    elif any(isinstance(k, str) for k in kinds):
        from .kubernetes import from_manifests

        loaded = from_manifests(documents)
    elif len(documents) == 1 and ("services" in documents[0] and not isinstance(documents[0]["services"], list)):
        from .compose import from_compose

        loaded = from_compose(documents[0], base, name)
    elif len(documents) == 1:
        loaded = Loaded(strict.decode(documents[0]))
    else:
        raise InvalidArgument(
            f"{path} has {len(documents)} documents and none is a Kubernetes Pod", hint="keep one podfile per file"
        )
    podfile = loaded.podfile
    if name:
        podfile = msgspec.structs.replace(podfile, id=name)
    secrets = [_with_content(s, base) for s in podfile.secrets]
    containers = [_with_profile(c, base) for c in podfile.containers]
    inits = [_with_profile(c, base) for c in podfile.init_containers]
    podfile = msgspec.structs.replace(podfile, secrets=secrets, containers=containers, init_containers=inits)
    return Loaded(podfile, loaded.unmapped)


def _documents(path: str) -> list[dict[str, Any]]:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text()
    except OSError as error:
        raise InvalidArgument(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    except UnicodeDecodeError:
        raise InvalidArgument(f"{path} is not UTF-8 text", hint="write the podfile as JSON or YAML") from None
    import yaml  # JSON is a part of YAML

    try:
        found = [d for d in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if d is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise InvalidArgument(
            f"{path} is no JSON or YAML{where}: {getattr(error, 'problem', error)}", hint="correct it"
        ) from error
    if not found or not all(isinstance(d, dict) for d in found):
        raise InvalidArgument(f"{path} holds no podfile", hint="see docs/podfile.md, or `hyperctl pod generate`")
    return found


def _with_profile(container: Container, base: Path) -> Container:
    """Its seccomp profile, from a file of whoever runs this; text is as it is."""
    path = container.seccomp_profile
    if not path or path.lstrip().startswith("{"):
        return container
    try:
        text = (base / path).read_text() or "{}"  # which is as little a profile as nothing
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"podfile: the seccomp profile {path} cannot be read: {error}",
                              hint="check the path") from error  # fmt: skip
    return msgspec.structs.replace(container, seccomp_profile=text)


def _with_content(secret: Secret, base: Path) -> Secret:
    """The value, from the file or the environment of whoever runs this."""
    if sum(bool(x) for x in (secret.content, secret.file, secret.env)) != 1 and not (
        secret.encoding and not secret.file and not secret.env
    ):
        raise InvalidArgument(
            f"podfile: secret {secret.name!r} needs one of content, file and env", hint="give exactly one"
        )
    if secret.content or secret.encoding:
        return secret
    if secret.env:
        if secret.env not in os.environ:
            raise InvalidArgument(
                f"podfile: secret {secret.name!r}: the variable {secret.env} is not set", hint="set it"
            )
        return Secret(name=secret.name, content=os.environ[secret.env])
    try:
        return Secret(name=secret.name, content=(base / secret.file).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(
            f"podfile: secret {secret.name!r}: cannot read {secret.file}: {error}", hint="check the path"
        ) from error


def images(podfile: Podfile) -> dict[str, str]:
    """Each image that the pod needs, once, and for which platform, "" where none is named."""
    return {c.image: c.platform for c in [*podfile.init_containers, *podfile.containers]}
