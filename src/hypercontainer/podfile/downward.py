# SPDX-License-Identifier: Apache-2.0
"""What a Kubernetes Pod may ask about itself: fields, and containers' resources."""

from __future__ import annotations

import json
import math
import os
import re
import socket
import uuid
from typing import Any

from ..errors import InvalidArgument
from ..model.units import SIZE_MAX
from . import manifest as m
from .manifest_volumes import ResourceFieldRef

_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['(.+)'\]\Z")
_QUANTITY = re.compile(r"(\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:([mkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,2}))?", re.ASCII)
_SCALE = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18} | {
    f"{letter}i": float(1 << (10 * power)) for power, letter in enumerate("KMGTPE", 1)
}


def quantity(value: Any) -> float:
    """`500m`, `128Mi`, `1G`, `1e3` as a number (Kubernetes' resource.Quantity).

    :raise InvalidArgument: when it is none, or too large.
    """
    match = _QUANTITY.fullmatch(str(value))
    number = -1.0
    if match:
        number = float(match[1]) * (_SCALE[match[2]] if match[2] else 10.0 ** int(match[3] or 0))
    if not 0 <= number < SIZE_MAX:
        raise InvalidArgument(f"invalid quantity {str(value)[:40]!r}", hint="write it as 500m, 128Mi or 1")
    return number


def text(value: m.Scalar) -> str:
    """A value of YAML as what Kubernetes makes of it: text."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


class Downward:
    """The fields of one Pod."""

    def __init__(self, name: str, pod: m.Pod) -> None:
        self._pod = pod
        self._fields = {
            "metadata.name": name,
            "metadata.namespace": pod.metadata.namespace or "default",
            "metadata.uid": pod.metadata.uid or str(uuid.uuid4()),
            "spec.nodeName": pod.spec.node_name or socket.gethostname(),
            "spec.serviceAccountName": pod.spec.service_account_name or pod.spec.service_account or "default",
        }

    def field(self, path: str) -> str:
        """:raise InvalidArgument: an unknown one."""
        if match := _SUBSCRIPT.match(path):
            values = self._pod.metadata.labels if match[1] == "labels" else self._pod.metadata.annotations
            return text(values.get(match[2]))
        if path in ("metadata.labels", "metadata.annotations"):
            values = self._pod.metadata.labels if path.endswith("labels") else self._pod.metadata.annotations
            return "\n".join(f"{k}={json.dumps(text(v), ensure_ascii=False)}" for k, v in sorted(values.items()))
        if path not in self._fields:
            raise InvalidArgument(
                f"the field {path!r} has no counterpart here",
                hint=f"known are {', '.join([*self._fields, 'status.podIP'])}",
            )
        return self._fields[path]

    def resource(self, ref: ResourceFieldRef, container: m.Container | None) -> str:
        """A container's limit or request, in units of the divisor; without a limit what the host has.

        :raise InvalidArgument: an unknown resource or container.
        """
        if ref.container_name:
            everyone = [*self._pod.spec.init_containers, *self._pod.spec.containers]
            container = next((c for c in everyone if c.name == ref.container_name), None)
        if container is None:
            raise InvalidArgument(
                f"there is no container {ref.container_name!r}, whose {ref.resource} is asked for",
                hint="correct containerName",
            )
        host = {"cpu": os.cpu_count() or 1, "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")}
        kind, _, name = ref.resource.partition(".")
        if kind not in ("limits", "requests") or name not in host:
            raise InvalidArgument(
                f"the resource {ref.resource!r} has no counterpart here",
                hint="ask for the limits or requests of cpu or memory",
            )
        limits, requests = container.resources.limits, container.resources.requests
        given = limits.get(name, host[name]) if kind == "limits" else requests.get(name, limits.get(name, 0))
        divisor = quantity(ref.divisor) or 1
        return str(math.ceil(quantity(given) / divisor))
