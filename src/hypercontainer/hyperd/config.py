# SPDX-License-Identifier: Apache-2.0
"""hyperd's configuration: a TOML file, then the command line."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ..engine.audit import AuditSettings
from ..errors import InvalidArgument
from ..hypervisor.qemu.machine_types import processor_of_host
from ..images.limits import Limits
from ..images.trust import Trust
from ..jail.host_groups import PARENT
from ..model.log_options import read_log_options
from ..model.principal import Scope
from ..model.rates import RateBounds, parse_rate
from ..model.sentences import explain
from ..model.specs import MEMORY_DEFAULT, LogDriver, LogOptions
from ..model.units import parse_duration, parse_size
from ..network.addresses import AnyNetwork, parse_subnet
from ..serving.listener import ListenLimits
from ..state.journal import EventLimits
from ..sys import users
from ..sys.private import require_private
from ..volumes.scratch import DEFAULT_SIZE
from . import quota_config
from .builder_config import BuilderConfig
from .cluster_config import ClusterConfig
from .fip_config import FipConfig
from .oidc_config import OidcConfig
from .values import value

_EVENTS_MAX = 1_000_000  # about 300 MB
_CONNECTIONS_MAX = 100_000
_LAYERS_MAX = 900  # each is an open file while an image is converted
SYSTEM_FILE = Path("/etc/hyper/hyperd.toml")


def default_root() -> Path:
    """Where state is kept: the system's place, or the user's data directory."""
    if os.geteuid() == 0:
        return Path("/var/lib/hyper")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "hyper"


def default_run() -> Path:
    """Where sockets are: /run/hyper, or the user's runtime directory.

    :raise PermissionDenied: without one, when somebody else made what we would use in /tmp.
    """
    if os.geteuid() == 0:
        return Path("/run/hyper")
    if base := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(base) / "hyper"
    path = Path(f"/tmp/hyper-{os.getuid()}")
    require_private(str(path))
    return path


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """All settings; sizes are written like 10m."""

    root: str = ""
    run: str = ""
    socket: str = ""
    socket_mode: str = "660"  # octal
    group: str = ""  # who else may use the socket; "" is the group hyper for root's, if there is one
    listen: list[str] = []  # further addresses, tcp://ADDRESS:PORT, with TLS 1.3
    docker: bool = True  # off: no socket for Docker's clients
    docker_socket: str = ""  # "" is docker.sock below `run`
    docker_listen: list[str] = []  # further addresses for them, tcp://ADDRESS:PORT, with TLS 1.3 and certificates
    console_listen: list[str] = []  # addresses of pages for browsers, tcp://ADDRESS:PORT; of others with TLS
    cri: bool = False  # on: a socket for a kubelet, as its container runtime
    cri_socket: str = ""  # "" is cri.sock below `run`
    cri_streaming: str = "tcp://127.0.0.1:0"  # where its exec, attach and port-forward are served; 0 is any port
    cri_network: str = ""  # of its pods: "" as of others, a network's name, or cni: the first one of CNI's
    cri_kubelet: str = "/var/lib/kubelet"  # the kubelet's directory, of which each pod is given its own part
    cri_pod_memory: str = "512m"  # that the machine of each of its pods has at least
    tlscert: str = ""  # PEM: hyperd's own certificate, and what leads to its CA
    tlskey: str = ""
    tlscacert: str = ""  # PEM: the CA of clients' certificates; "" takes none
    tlscrl: str = ""  # PEM: which of them that CA has revoked; "": none
    # Common name of a client's certificate, or * for all others -> what it may do. Without * these others may
    # `operate` where there are neither organisations nor users, and nothing where there are.
    clients: dict[str, list[Scope]] = {}
    connections_max: Annotated[int, Meta(ge=16, le=_CONNECTIONS_MAX)] = ListenLimits.connections  # per address
    connections_per_peer: Annotated[int, Meta(ge=4, le=_CONNECTIONS_MAX)] = ListenLimits.per_peer
    kernel: str = ""
    driver: str = "qemu"  # hypervisor of pods that name none; auto: what suits each
    prefer: Literal["features", "density"] = "features"  # of those that suit, by auto: QEMU, or Firecracker
    qemu: str = processor_of_host().binary
    machine_type: Literal["auto", "microvm", "q35", "pc"] = "auto"  # of QEMU's machines; auto: the first that boots
    firecracker: str = "firecracker"
    libvirt_uri: str = ""  # "" is qemu:///system for root, qemu:///session else
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    jail: Literal["auto", "on", "off"] = "auto"  # of hypervisors; auto: always for root, else where the host allows it
    control_groups: Literal["auto", "on", "off"] = "auto"  # of virtual machines; on: none starts without
    control_group_parent: str = PARENT  # below hyperd's own group, or from the top where it begins with /
    io_weight: Annotated[int, Meta(ge=0, le=1000)] = 0  # of each virtual machine, beside others' 100; 0: as others
    io_rate: str = ""  # bytes per second that each may read, and write, on the disk of `root`; "": as many as it can
    egress_rate: str = ""  # bits per second that each NIC in a network of this host may send; "": as many as it can
    ingress_rate: str = ""  # and receive
    boot_timeout: Annotated[float, Meta(gt=0)] = 60.0  # seconds
    log_driver: LogDriver = "json-file"  # of containers that name none
    log_opts: dict[str, str] = {}  # of those, and of those that name the same one
    log_max_size: str = "10m"
    log_max_files: Annotated[int, Meta(ge=1)] = 3
    scratch_size: str = f"{DEFAULT_SIZE >> 30}g"
    insecure_registries: list[str] = []
    builder: BuilderConfig = msgspec.field(default_factory=BuilderConfig)
    image_policy: str = ""  # containers-policy.json(5); "": this host's
    image_policies: dict[str, str] = {}  # names -> files as `image_policy`, for projects
    image_signatures: str = ""  # a directory, containers-registries.d(5); "": this host's
    image_size: str = f"{Limits.size >> 30}g"  # of an image's files, and of its uncompressed layers
    image_files: Annotated[int, Meta(ge=1)] = Limits.files
    image_layers: Annotated[int, Meta(ge=1, le=_LAYERS_MAX)] = Limits.layers
    image_ratio: Annotated[int, Meta(ge=1)] = Limits.ratio  # uncompressed bytes for a compressed one
    image_memory: str = f"{Limits.memory >> 20}m"  # of each process that converts it
    image_time: Annotated[float, Meta(gt=0)] = Limits.time  # seconds that this may take
    network: str = ""  # of pods that name none: bridge, user, none; "" is bridge for root, where the host allows it
    bridge: str = "hyper0"
    bridge_subnet: str = "192.168.123.0/24"
    bridge_subnet6: str = "fd7c:9a1e:6b0d::/64"
    user_network: Literal["auto", "passt", "slirp"] = "auto"
    fips: FipConfig = msgspec.field(default_factory=FipConfig)
    egress_networks: list[str] = []  # CIDR, not public ones: where hosts that pods may reach by name may lie, too
    users: str = (
        f"{users.FIRST}-{users.LAST}"  # as which root's daemon runs what serves a machine, or looks into an image
    )
    volume_type: Literal["block", "directory"] = "block"  # of named volumes that are made without a word about it
    virtiofs: bool = True  # off: no directories of the host
    factory: bool = True  # off: every virtual machine boots
    factory_memory: str = "512m"  # that templates may hold
    pool_memory: str = "512m"  # that machines may hold which wait for a container; 0: none wait
    events_max_count: Annotated[int, Meta(ge=1, le=_EVENTS_MAX)] = EventLimits().count  # that are kept for `events`
    events_max_age: str = f"{EventLimits().age / 3600:g}h"
    metering: bool = False  # on: also what belongs to no project is in `hyperctl usage`
    unresponsive: Literal["leave", "kill"] = "leave"  # machines whose guests have not answered for half a minute
    live_restore: bool = False  # leave containers running when hyperd ends
    oidc: OidcConfig = msgspec.field(default_factory=OidcConfig)
    audit_log: str = ""  # a file; "" keeps none
    audit_max_size: str = "10m"
    audit_max_files: Annotated[int, Meta(ge=1, le=1000)] = 5
    sizes: dict[str, str] = {}  # of pods, by name: VCPUS/MEMORY; beside S1 to L3
    # Principals, also as patterns such as token:* -> what each may have: pods, memory, ...
    quotas: dict[str, dict[str, str | int]] = {}
    cluster: ClusterConfig | None = None  # of Kubernetes, whose namespaces are projects
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"

    @property
    def root_path(self) -> Path:
        return Path(self.root) if self.root else default_root()

    @property
    def run_path(self) -> Path:
        return Path(self.run) if self.run else default_run()

    @property
    def socket_path(self) -> Path:
        return Path(self.socket) if self.socket else self.run_path / "hyper.sock"

    @property
    def docker_path(self) -> Path:
        return Path(self.docker_socket) if self.docker_socket else self.run_path / "docker.sock"

    def _size(self, key: str) -> int:
        """Bytes. :raise InvalidArgument: naming the key."""
        return value(key, getattr(self, key), parse_size)

    @property
    def cri_path(self) -> Path:
        return Path(self.cri_socket) if self.cri_socket else self.run_path / "cri.sock"

    @property
    def cri_pod_bytes(self) -> int:
        """:raise InvalidArgument: no machine can be so small."""
        size = self._size("cri_pod_memory")
        if size < MEMORY_DEFAULT // 2:
            raise InvalidArgument(f"cri_pod_memory {self.cri_pod_memory} is too small", hint="give at least 128m")
        return size

    @property
    def socket_bits(self) -> int:
        """:raise InvalidArgument: no mode that a socket can have, or one that lets everybody in."""
        if not re.fullmatch("0?[0-7]{3}", self.socket_mode) or int(self.socket_mode, 8) & 0o007:
            raise InvalidArgument(
                f"invalid socket_mode {self.socket_mode!r}", hint="write it as 600 or 660: it is never open to all"
            )
        return int(self.socket_mode, 8)

    @property
    def log_options(self) -> LogOptions:
        return read_log_options(self.log_driver, self.log_opts)

    @property
    def log_bytes(self) -> int:
        return self._size("log_max_size")

    @property
    def image_limits(self) -> Limits:
        return Limits(
            size=self._size("image_size"), files=self.image_files, ratio=self.image_ratio, layers=self.image_layers,
            memory=self._size("image_memory"), time=self.image_time,
        )  # fmt: skip

    @property
    def opened_networks(self) -> tuple[AnyNetwork, ...]:
        return tuple(value("egress_networks", text, parse_subnet) for text in self.egress_networks)

    @property
    def user_numbers(self) -> tuple[int, int]:
        return users.parse(self.users)

    @property
    def control_group_path(self) -> str:
        """:raise InvalidArgument: no path of a group."""
        words = self.control_group_parent.removeprefix("/").split("/")
        if not all(re.fullmatch(r"[A-Za-z0-9_.-]+", w) and w not in (".", "..") for w in words):
            raise InvalidArgument(f"invalid control_group_parent {self.control_group_parent!r}",
                                  hint="write it like hyper, or /machines/hyper")  # fmt: skip
        return self.control_group_parent

    @property
    def io_bytes(self) -> int:
        return self._size("io_rate") if self.io_rate else 0

    @property
    def rate_bounds(self) -> RateBounds:
        """:raise InvalidArgument: a malformed rate."""
        found = (value(name, getattr(self, name), parse_rate) for name in ("egress_rate", "ingress_rate"))
        return RateBounds(*found)

    @property
    def factory_bytes(self) -> int:
        return self._size("factory_memory")

    @property
    def pool_bytes(self) -> int:
        return self._size("pool_memory")

    @property
    def event_limits(self) -> EventLimits:
        return EventLimits(self.events_max_count, value("events_max_age", self.events_max_age, parse_duration))

    @property
    def trust(self) -> Trust:
        """:raise InvalidArgument: a policy that is not there, or is none: it must not be one that accepts all."""
        if self.image_policy:
            _check_image_policy("image_policy", self.image_policy)
        if self.image_signatures and not Path(self.image_signatures).is_dir():
            raise InvalidArgument(f"image_signatures {self.image_signatures} is no directory")
        return Trust(self.image_policy, self.image_signatures)

    @property
    def trusts(self) -> dict[str, Trust]:
        """Of projects whose policy names one. Raises as `trust`."""
        for name, file in self.image_policies.items():
            _check_image_policy(f"image_policies: {name}:", file)
        return {name: Trust(file, self.image_signatures) for name, file in self.image_policies.items()}

    @property
    def audit(self) -> AuditSettings | None:
        if not self.audit_log:
            return None
        return AuditSettings(Path(self.audit_log), self._size("audit_max_size"), self.audit_max_files)

    @property
    def scratch_bytes(self) -> int:
        return self._size("scratch_size")


def _check_image_policy(what: str, file: str) -> None:
    """:raise InvalidArgument: it is not there, or is none."""
    try:
        found = json.loads(Path(file).read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{what} {file} cannot be read: {error}") from error
    if not isinstance(found, dict) or "default" not in found:
        raise InvalidArgument(f"{what} {file} has no `default`", hint="see containers-policy.json(5)")


def load(file: Path | None, overrides: dict[str, Any]) -> Config:
    """Read the file (the system's when none is named and it exists) and apply the command line.

    :raise InvalidArgument: with the file, the key and what is wrong.
    """
    settings: dict[str, Any] = {}
    path = file or SYSTEM_FILE
    if file or path.exists():
        try:
            settings = tomllib.loads(path.read_text())
        except OSError as error:
            raise InvalidArgument(f"cannot read {path}: {error.strerror}") from error
        except tomllib.TOMLDecodeError as error:
            raise InvalidArgument(f"{path} is not TOML: {error}") from error
    settings |= {k: v for k, v in overrides.items() if v not in (None, ())}
    try:
        config = msgspec.convert(settings, Config)
        _ = (
            config.event_limits,
            config.log_bytes,
            config.log_options,
            config.scratch_bytes,
            config.factory_bytes,
            config.pool_bytes,
            config.image_limits,
            config.user_numbers,
            config.control_group_path,
            config.io_bytes,
            config.rate_bounds,
            config.cri_pod_bytes,
            config.socket_bits,
            config.audit,
            config.trust,
            config.trusts,
            quota_config.sizes(config.sizes),
            quota_config.quotas(config.quotas),
            config.builder.settings(config.insecure_registries),
            config.oidc.configuration(),
        )
    except msgspec.ValidationError as error:
        raise InvalidArgument(
            f"invalid configuration: {explain(error, settings, Config)}", hint=f"see {path} and `hyperd --help`"
        ) from error
    return config
