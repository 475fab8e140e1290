# SPDX-License-Identifier: Apache-2.0
"""CreateContainer's configuration becomes a container that joins its sandbox's pod."""

from __future__ import annotations

import posixpath
import re
from typing import Any

from ..engine.resolve import GUEST_RESERVE
from ..errors import InvalidArgument, InvalidState, Unsupported
from ..model.specs import MEMORY_MIN, ContainerSpec, LogOptions, Mount, Propagation, Resources
from ..model.status import Pod
from ..model.units import format_binary
from . import api, node_files
from .records import ContainerRecord, SandboxRecord, given
from .sandbox_request import cpus_of, host_cpus, host_memory
from .security import fields_of

_NAME_MAX = 128


def spec_of(pod: Pod, of: SandboxRecord, config: Any) -> ContainerSpec:
    """:raise InvalidArgument: it is malformed. :raise Unsupported: devices, and what else no virtual machine has.
    :raise InvalidState: the pod's machine has less memory than the container may use.
    """
    if not config.metadata.name or not config.image.image:
        raise InvalidArgument("the container has no name, or no image", hint="give metadata.name and image.image")
    if config.devices or config.CDI_devices:
        raise Unsupported("devices of the node cannot be given to a container: it is in a virtual machine")
    log_path = _log_path(of, config.log_path)
    record = ContainerRecord(
        name=config.metadata.name, attempt=config.metadata.attempt, image=config.image.image,
        shown_image=config.image.user_specified_image, stdin_once=config.stdin_once,
        log_path=config.log_path if log_path else "",
        mounts=[(m.container_path, m.host_path, m.readonly) for m in config.mounts],
    )  # fmt: skip
    return ContainerSpec(
        image=config.image.image,
        name=_name(pod, record),
        pod=pod.id,
        entrypoint=list(config.command) or None,
        command=list(config.args) or None,
        workdir=config.working_dir,
        env=[f"{e.key}={e.value}" for e in config.envs],
        stdin=config.stdin,
        tty=config.tty,
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        mounts=_mounts(pod, config.mounts),
        resources=resources_of(pod, config.linux.resources),
        stop_signal=_signal(config.stop_signal),
        log=LogOptions(driver="k8s-file", path=log_path) if log_path else LogOptions(),
        no_health=True,  # a kubelet has probes of its own
        given=given(record),
        **fields_of(config.linux.security_context),
    )


def _name(pod: Pod, record: ContainerRecord) -> str:
    """Unique by the pod's, the container's and the attempt."""
    end = f"_{record.attempt}"
    name = re.sub(r"[^a-zA-Z0-9_.-]", "-", f"{record.name}_{pod.name}")
    return name[: _NAME_MAX - len(end)] + end


def _log_path(of: SandboxRecord, path: str) -> str:
    """ "" where one of both is missing: the log is hyperd's own then."""
    if not (of.log_directory and path):
        return ""
    whole = posixpath.normpath(posixpath.join(of.log_directory, path))
    if not whole.startswith(posixpath.normpath(of.log_directory) + "/"):
        raise InvalidArgument(f"the log {path!r} is not below the sandbox's log directory")
    return whole


def _mounts(pod: Pod, wanted: Any) -> list[Mount]:
    of_node = [m for m in wanted if not m.HasField("image")]
    files = node_files.NodeFiles(pod) if of_node else None
    found = [_mount(files, m) for m in of_node] if files else []
    return [*found, *(_image(m) for m in wanted if m.HasField("image"))]


def _image(m: Any) -> Mount:
    """An image as a volume, for reading."""
    if not m.image.image:
        raise InvalidArgument(f"{m.container_path}: the image to mount has no name", hint="give image.image")
    if m.host_path:
        raise InvalidArgument(f"{m.container_path}: it is mounted from an image and from {m.host_path}",
                              hint="give one of them")  # fmt: skip
    return Mount(type="image", source=m.image.image, target=m.container_path, sub_path=m.image_sub_path,
                 read_only=True, copy_up=False)  # fmt: skip


def _mount(files: node_files.NodeFiles, m: Any) -> Mount:
    if m.propagation == api.PROPAGATION_BIDIRECTIONAL:
        raise Unsupported(
            f"{m.container_path}: what is mounted in a virtual machine is its own kernel's, and not propagated to the "
            "node", hint="give mountPropagation HostToContainer, or leave it out",
        )  # fmt: skip
    if m.recursive_read_only:
        raise Unsupported(f"{m.container_path}: what is mounted below it need not be read-only, too",
                          hint="leave recursiveReadOnly out")  # fmt: skip
    if m.uidMappings or m.gidMappings:
        raise Unsupported(f"{m.container_path}: a mount cannot have user numbers of its own")
    if not m.host_path:
        raise InvalidArgument(f"{m.container_path}: the mount has no path of the node")
    propagation: Propagation = "rslave" if m.propagation == api.PROPAGATION_HOST_TO_CONTAINER else ""
    return files.mount(m.host_path, m.container_path, read_only=m.readonly, propagation=propagation)


def resources_of(pod: Pod, wanted: Any) -> Resources:
    """Limits of CPUs and memory; weights are for those who share a processor, and sets for those who have several.

    :raise Unsupported: huge pages. :raise InvalidState: the pod's machine has less memory.
    """
    if any(h.limit for h in wanted.hugepage_limits):
        raise Unsupported("huge pages of the node cannot be given to a container: it is in a virtual machine")
    return Resources(
        cpus=min(cpus_of(wanted), host_cpus()), memory=_memory(pod, wanted.memory_limit_in_bytes),
        pids=_pids(wanted.unified),
    )  # fmt: skip


def _memory(pod: Pod, limit: int) -> int:
    """0 is all that the machine can spare; a limit that nothing could run in is the least one that is taken."""
    most = pod.memory - GUEST_RESERVE
    if limit <= 0 or (limit > most and pod.memory >= host_memory()):
        return 0
    if limit > most:
        raise InvalidState(
            f"the limit of {format_binary(limit)} is more than the {format_binary(most)} of the pod's virtual machine",
            hint="a kubelet that does not say how much a pod needs is older than 1.23: set cri_pod_memory",
        )
    return max(limit, MEMORY_MIN)


def _pids(unified: Any) -> int:
    text = unified.get("pids.max", "")
    return int(text) if text.isdecimal() else 0


def _signal(number: int) -> str:
    """ "" is the image's."""
    if number == api.RUNTIME_DEFAULT:
        return ""
    return api.name_of("Signal", number).replace("PLUS", "+").replace("MINUS", "-")
