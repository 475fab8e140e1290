# SPDX-License-Identifier: Apache-2.0
"""What a container's run has of this host, told as its start and its end: networks and named volumes."""

from __future__ import annotations

from ..model.status import Container
from .events import Events
from .registry import Registry


def tell(events: Events, registry: Registry, container: Container, *, began: bool) -> None:
    """The networks of a pod with further containers are the pod's, and not told with any one of these."""
    if not registry.has_pod(container.pod):
        return
    pod = registry.pod(container.pod)
    for attachment in pod.attachments if pod.implicit else []:
        network = next((n for n in registry.networks() if attachment.is_of(n)), None)
        if network:
            events.publish(
                "network", "connect" if began else "disconnect", network.id, of=network.labels, name=network.name,
                container=container.id,
            )  # fmt: skip
    named = {v.name: v.named for v in pod.volumes if v.named}
    for point in container.mounts:
        if not (name := named.get(point.volume)):
            continue
        if not began:
            events.publish("volume", "unmount", name, tenant=pod.tenant, container=container.id, driver="local")
            continue
        writable = str(not point.mount.read_only).lower()
        events.publish(
            "volume", "mount", name, tenant=pod.tenant, container=container.id, driver="local",
            destination=point.mount.target, propagation="", writable=writable,
        )  # fmt: skip
