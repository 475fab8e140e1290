# SPDX-License-Identifier: Apache-2.0
"""Files that a container gets from outside its image."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence

from ..errors import InvalidArgument
from ..model.specs import HOST_GATEWAY
from ..model.status import Container, Pod
from ..network import names as naming
from ..network.backend import Link
from ..network.egress import authority
from ..protocol.messages import GuestFile
from . import egress_secrets, environment, resolve
from .pod_network import PodNetwork
from .secrets import Secrets

FILES_MAX = 900 << 10  # bytes; a message to a guest has 1 MiB, for their names and all else too


def files_of(
    pod: Pod, container: Container, secrets: Secrets, network: PodNetwork, names: list[str]
) -> tuple[GuestFile, ...]:
    """Files bound into the container: names of the network, and secrets, which stay in the guest's memory."""
    supplied = {m.mount.target for m in container.mounts} | {f.target for f in container.spec.files}
    made = [
        GuestFile(path, content)
        for path, content in _network_files(pod, container, network, names).items()
        if path not in supplied and not container.spec.rootfs  # whose files are its caller's doing
    ]
    for s in container.spec.secrets:
        made.append(GuestFile(s.target, secrets.get(pod.id, s.secret), s.mode, s.uid, s.gid))
    if pod.spec.egress and pod.spec.egress.secrets:
        made.append(GuestFile(authority.BUNDLE, egress_secrets.bundle(pod.spec.egress), 0o644))
    check_size(container, sum(len(f.content) for f in made))
    if container.spec.read_only:  # there is no writing the others into the root
        made += [GuestFile(f.target, f.content, f.mode, f.uid, f.gid) for f in container.spec.files]
        check_size(container, sum(len(f.content) for f in made))
    return tuple(made)


def check_size(container: Container, size: int) -> None:
    """:raise InvalidArgument: when what a container gets at its start is more than one message to a guest holds."""
    if size > FILES_MAX:
        raise InvalidArgument(
            f"the secrets and files of container {container.name} have {size} bytes in all, "
            f"and {FILES_MAX} is the most",
            hint="keep large ones in a volume",
        )


def _network_files(pod: Pod, container: Container, network: PodNetwork, names: list[str]) -> dict[str, bytes]:
    links = network.links(pod)
    address = next((a for link in links for a in link.addresses), "")
    spec = pod.spec
    servers = spec.dns or network.name_servers(pod)
    local = [] if pod.implicit else names
    contents = (
        f"{pod.hostname}\n".encode(),
        naming.hosts_file(pod.hostname, address, local, _hosts(pod, links), container.spec.domainname),
        naming.resolv_conf(servers, spec.dns_search, spec.dns_options) if links else b"",
        f"{pod.id[:32]}\n".encode(),  # machine-id(5): a virtual machine is one, whatever its image says
    )
    return dict(zip(resolve.OWN_FILES, contents, strict=True))


def injected_archive(container: Container) -> bytes:
    """The files that belong into the container's own root, as a tar; b"" when there are none."""
    files = [] if container.spec.read_only else container.spec.files
    if not files:
        return b""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for f in files:
            info = tarfile.TarInfo(f.target.lstrip("/"))
            info.size, info.mode, info.uid, info.gid = len(f.content), f.mode, f.uid, f.gid
            tar.addfile(info, io.BytesIO(f.content))
    return out.getvalue()


def _hosts(pod: Pod, links: Sequence[Link]) -> list[tuple[str, list[str]]]:
    """Lines of /etc/hosts; this host by the address that the pod reaches it at.

    :raise InvalidArgument: when the pod's network does not lead to it.
    """
    found = []
    for host in pod.spec.hosts:
        ip = environment.addresses(pod, links).get("hostIP", "") if host.ip == HOST_GATEWAY else host.ip
        if not ip:
            raise InvalidArgument(
                f"{host.names[0]}:{HOST_GATEWAY}: the network of pod {pod.name} does not lead to this host",
                hint="use another network",
            )
        found.append((ip, host.names))
    return found
