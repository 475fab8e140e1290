# SPDX-License-Identifier: Apache-2.0
"""Kubernetes' Pod as structures: every field that there is, so that a misspelt one is found.

Fields of https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/.
Those of type Any are known and mean nothing here; `kubernetes` names them when they are given.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from .document import Count, Part, Port
from .manifest_volumes import FieldRef, Quantity, ResourceFieldRef, Volume

Positive = Annotated[int, Meta(ge=1)]
Number = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]  # of a user or group
PortOrName = Port | str
Scalar = str | int | float | bool | None


class Metadata(Part, frozen=True, kw_only=True):
    """What of an object's metadata is known here."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, Scalar] = field(default_factory=dict)
    annotations: dict[str, Scalar] = field(default_factory=dict)
    creation_timestamp: Any = None
    generate_name: str = ""
    generation: Any = None
    managed_fields: Any = None
    owner_references: Any = None
    resource_version: Any = None
    self_link: Any = None
    finalizers: Any = None
    deletion_timestamp: Any = None
    deletion_grace_period_seconds: Any = None


class Data(Part, frozen=True, kw_only=True):
    """A ConfigMap or a Secret."""

    api_version: str = ""
    kind: str
    metadata: Metadata
    data: dict[str, Scalar] = field(default_factory=dict)
    string_data: dict[str, Scalar] = field(default_factory=dict)
    binary_data: dict[str, str] = field(default_factory=dict)
    type: str = ""
    immutable: bool = False


class KeyRef(Part, frozen=True, kw_only=True):
    """A key of a ConfigMap or Secret."""

    name: str
    key: str
    optional: bool = False


class EnvSource(Part, frozen=True, kw_only=True):
    """Where a variable's value comes from."""

    field_ref: FieldRef | None = None
    resource_field_ref: ResourceFieldRef | None = None
    config_map_key_ref: KeyRef | None = None
    secret_key_ref: KeyRef | None = None
    file_key_ref: Any = None


class Env(Part, frozen=True, kw_only=True):
    """An environment variable."""

    name: str
    value: Scalar = None
    value_from: EnvSource | None = None


class NameRef(Part, frozen=True, kw_only=True):
    """A whole ConfigMap or Secret."""

    name: str
    optional: bool = False


class EnvFrom(Part, frozen=True, kw_only=True):
    """All keys of a ConfigMap or Secret as variables."""

    prefix: str = ""
    config_map_ref: NameRef | None = None
    secret_ref: NameRef | None = None


class VolumeMount(Part, frozen=True, kw_only=True):
    """A volume at a path."""

    name: str
    mount_path: str
    read_only: bool = False
    sub_path: str = ""
    sub_path_expr: str = ""
    mount_propagation: Literal["None", "HostToContainer", "Bidirectional"] = "None"
    recursive_read_only: Any = None


class ContainerPort(Part, frozen=True, kw_only=True):
    """A port; published when it has a hostPort."""

    container_port: Port
    host_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    host_ip: str = field(default="", name="hostIP")
    name: str = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"


class Resources(Part, frozen=True, kw_only=True):
    """What a container may use, and wants."""

    limits: dict[str, Quantity] = field(default_factory=dict)
    requests: dict[str, Quantity] = field(default_factory=dict)
    claims: Any = None


class HttpHeader(Part, frozen=True, kw_only=True):
    """A header of a probe's request."""

    name: str
    value: str = ""


class HttpGet(Part, frozen=True, kw_only=True):
    """A probe by HTTP."""

    port: PortOrName
    path: str = "/"
    host: str = ""
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    http_headers: list[HttpHeader] = field(default_factory=list)


class TcpSocket(Part, frozen=True, kw_only=True):
    """A probe by a connection."""

    port: PortOrName
    host: str = ""


class ExecAction(Part, frozen=True, kw_only=True):
    """A probe by a command."""

    command: list[str]


class Probe(Part, frozen=True, kw_only=True):
    """How to learn whether a container is well. Times in seconds."""

    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    exec: ExecAction | None = None
    grpc: Any = None
    initial_delay_seconds: Count = 0
    period_seconds: Positive = 10
    timeout_seconds: Positive = 1
    failure_threshold: Positive = 3
    success_threshold: Positive = 1
    termination_grace_period_seconds: Any = None


class Capabilities(Part, frozen=True, kw_only=True):
    """Beside the default set."""

    add: list[str] = field(default_factory=list)
    drop: list[str] = field(default_factory=list)


class Profile(Part, frozen=True, kw_only=True):
    """Of seccomp or AppArmor."""

    type: Literal["RuntimeDefault", "Unconfined", "Localhost"]
    localhost_profile: str = ""


class SecurityContext(Part, frozen=True, kw_only=True):
    """Of a container; what is None is the Pod's."""

    run_as_user: Number | None = None
    run_as_group: Number | None = None
    run_as_non_root: bool | None = None
    read_only_root_filesystem: bool = False
    privileged: bool = False
    allow_privilege_escalation: bool | None = None
    capabilities: Capabilities = field(default_factory=Capabilities)
    seccomp_profile: Profile | None = None
    app_armor_profile: Profile | None = None
    se_linux_options: Any = None
    windows_options: Any = None
    proc_mount: Literal["Default", "Unmasked"] = "Default"


class Sysctl(Part, frozen=True, kw_only=True):
    """A kernel parameter of the Pod."""

    name: str
    value: Scalar


class PodSecurityContext(Part, frozen=True, kw_only=True):
    """Of the Pod: what its containers have that do not say otherwise."""

    run_as_user: Number | None = None
    run_as_group: Number | None = None
    run_as_non_root: bool | None = None
    fs_group: Number | None = None
    fs_group_change_policy: Any = None
    supplemental_groups: list[Number] = field(default_factory=list)
    supplemental_groups_policy: Literal["Merge", "Strict"] = "Merge"
    sysctls: list[Sysctl] = field(default_factory=list)
    seccomp_profile: Profile | None = None
    app_armor_profile: Profile | None = None
    se_linux_options: Any = None
    se_linux_change_policy: Any = None
    windows_options: Any = None


class Container(Part, frozen=True, kw_only=True):
    """A container of the Pod."""

    name: str
    image: str
    command: list[str] | None = None
    args: list[str] | None = None
    working_dir: str = ""
    env: list[Env] = field(default_factory=list)
    env_from: list[EnvFrom] = field(default_factory=list)
    volume_mounts: list[VolumeMount] = field(default_factory=list)
    ports: list[ContainerPort] = field(default_factory=list)
    resources: Resources = field(default_factory=Resources)
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    startup_probe: Probe | None = None
    security_context: SecurityContext = field(default_factory=SecurityContext)
    restart_policy: Literal["", "Always", "OnFailure", "Never"] = ""
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    image_pull_policy: Any = None
    termination_message_path: Any = None
    termination_message_policy: Any = None
    lifecycle: Any = None
    volume_devices: Any = None
    resize_policy: Any = None
    restart_policy_rules: Any = None


class DnsOption(Part, frozen=True, kw_only=True):
    """A line of resolv.conf's options."""

    name: str
    value: Scalar = None


class DnsConfig(Part, frozen=True, kw_only=True):
    """What resolv.conf says."""

    nameservers: list[str] = field(default_factory=list)
    searches: list[str] = field(default_factory=list)
    options: list[DnsOption] = field(default_factory=list)


class HostAlias(Part, frozen=True, kw_only=True):
    """A line of /etc/hosts."""

    ip: str
    hostnames: list[str] = field(default_factory=list)


class PodSpec(Part, frozen=True, kw_only=True):
    """The Pod's specification."""

    containers: list[Container]
    init_containers: list[Container] = field(default_factory=list)
    volumes: list[Volume] = field(default_factory=list)
    restart_policy: Literal["Always", "OnFailure", "Never"] = "Always"
    hostname: str = ""
    dns_config: DnsConfig = field(default_factory=DnsConfig)
    host_aliases: list[HostAlias] = field(default_factory=list)
    security_context: PodSecurityContext = field(default_factory=PodSecurityContext)
    termination_grace_period_seconds: Count | None = None
    service_account_name: str = ""
    service_account: str = ""
    host_network: bool = False
    host_pid: bool = field(default=False, name="hostPID")
    host_ipc: bool = field(default=False, name="hostIPC")
    host_users: bool | None = None
    share_process_namespace: bool | None = None
    active_deadline_seconds: Any = None
    affinity: Any = None
    automount_service_account_token: Any = None
    dns_policy: Any = None
    enable_service_links: Any = None
    ephemeral_containers: Any = None
    hostname_override: Any = None
    image_pull_secrets: Any = None
    node_name: str = ""
    node_selector: Any = None
    os: Any = None
    overhead: Any = None
    preemption_policy: Any = None
    priority: Any = None
    priority_class_name: Any = None
    readiness_gates: Any = None
    resource_claims: Any = None
    resources: Any = None
    runtime_class_name: Any = None
    scheduler_name: Any = None
    scheduling_gates: Any = None
    set_hostname_as_fqdn: Any = field(default=None, name="setHostnameAsFQDN")
    subdomain: Any = None
    tolerations: Any = None
    topology_spread_constraints: Any = None


class Pod(Part, frozen=True, kw_only=True):
    """The whole object."""

    api_version: str = ""
    kind: Literal["Pod"]
    metadata: Metadata = field(default_factory=Metadata)
    spec: PodSpec
    status: Any = None
