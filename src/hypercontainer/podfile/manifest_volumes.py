# SPDX-License-Identifier: Apache-2.0
"""The volumes of Kubernetes' Pod as structures.

Fields of https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/volume/.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import field

from .document import Part, Perm

Quantity = str | int | float


class KeyToPath(Part, frozen=True, kw_only=True):
    """One key of a ConfigMap or Secret as a file."""

    key: str
    path: str
    mode: Perm | None = None


class ConfigMapSource(Part, frozen=True, kw_only=True):
    """Files of a ConfigMap."""

    name: str
    items: list[KeyToPath] | None = None
    default_mode: Perm | None = None
    optional: bool = False


class SecretSource(Part, frozen=True, kw_only=True):
    """Files of a Secret; `name` in a projected volume, `secretName` in one of its own."""

    secret_name: str = ""
    name: str = ""
    items: list[KeyToPath] | None = None
    default_mode: Perm | None = None
    optional: bool = False


class FieldRef(Part, frozen=True, kw_only=True):
    """A field of the Pod itself."""

    field_path: str
    api_version: str = ""


class ResourceFieldRef(Part, frozen=True, kw_only=True):
    """A container's limit or request."""

    resource: str
    container_name: str = ""
    divisor: Quantity = 1


class DownwardItem(Part, frozen=True, kw_only=True):
    """A file about the Pod."""

    path: str
    field_ref: FieldRef | None = None
    resource_field_ref: ResourceFieldRef | None = None
    mode: Perm | None = None


class DownwardSource(Part, frozen=True, kw_only=True):
    """Files about the Pod."""

    items: list[DownwardItem] = field(default_factory=list)
    default_mode: Perm | None = None


class Projection(Part, frozen=True, kw_only=True):
    """One source of a projected volume."""

    config_map: ConfigMapSource | None = None
    secret: SecretSource | None = None
    downward_api: DownwardSource | None = field(default=None, name="downwardAPI")
    service_account_token: Any = None
    cluster_trust_bundle: Any = None
    pod_certificate: Any = None


class ProjectedSource(Part, frozen=True, kw_only=True):
    """Files of several sources in one directory."""

    sources: list[Projection] = field(default_factory=list)
    default_mode: Perm | None = None


class EmptyDir(Part, frozen=True, kw_only=True):
    """A volume that lives as long as the Pod."""

    medium: str = ""
    size_limit: Quantity | None = None


class HostPath(Part, frozen=True, kw_only=True):
    """A path of this host."""

    path: str
    type: Literal[
        "", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"
    ] = ""


class Nfs(Part, frozen=True, kw_only=True):
    """A directory of an NFS server."""

    server: str
    path: str
    read_only: bool = False


class Claim(Part, frozen=True, kw_only=True):
    """A named volume."""

    claim_name: str
    read_only: bool = False


class Volume(Part, frozen=True, kw_only=True):
    """One of the sources; those of type Any have no counterpart."""

    name: str
    empty_dir: EmptyDir | None = None
    host_path: HostPath | None = None
    nfs: Nfs | None = None
    persistent_volume_claim: Claim | None = None
    config_map: ConfigMapSource | None = None
    secret: SecretSource | None = None
    projected: ProjectedSource | None = None
    downward_api: DownwardSource | None = field(default=None, name="downwardAPI")
    csi: Any = None
    ephemeral: Any = None
    image: Any = None
    iscsi: Any = None
    fc: Any = None
    rbd: Any = None
    cephfs: Any = None
    cinder: Any = None
    glusterfs: Any = None
    git_repo: Any = None
    flocker: Any = None
    flex_volume: Any = None
    azure_disk: Any = None
    azure_file: Any = None
    aws_elastic_block_store: Any = None
    gce_persistent_disk: Any = None
    photon_persistent_disk: Any = None
    portworx_volume: Any = None
    quobyte: Any = None
    scale_io: Any = field(default=None, name="scaleIO")
    storageos: Any = None
    vsphere_volume: Any = None
