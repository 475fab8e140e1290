# SPDX-License-Identifier: Apache-2.0
"""A Kubernetes Pod's volumes: those that a podfile has, and the files of ConfigMaps, Secrets and the Pod itself."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ..errors import InvalidArgument
from . import manifest as m
from . import manifest_volumes as mv
from .convert import mode
from .downward import Downward, quantity, text

Raw = dict[str, Any]
_FILE_MODE = 0o644
_DISK_MIN = 16 << 20  # bytes; a file system takes that much
_KNOWN = "emptyDir, hostPath, nfs, persistentVolumeClaim, configMap, secret, downwardAPI or projected"


@dataclass(frozen=True)
class Placed:
    """A file of a volume: `called` is the podfile's name for its content."""

    called: str
    secret: bool
    mode: int


def content_of(data: m.Data) -> dict[str, bytes]:
    """The values of a ConfigMap or Secret, by key.

    :raise InvalidArgument: one that is not base64 and should be.
    """

    def decoded(key: str, value: m.Scalar) -> bytes:
        try:
            return base64.b64decode("".join(text(value).split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidArgument(
                f"{data.kind} {data.metadata.name}: {key} is not base64: {error}", hint="use stringData for plain text"
            ) from error

    plain = {k: text(v).encode() for k, v in (data.string_data if data.kind == "Secret" else data.data).items()}
    coded = data.data if data.kind == "Secret" else data.binary_data
    return {k: decoded(k, v) for k, v in coded.items()} | plain


@dataclass
class Volumes:
    """Collects what the podfile will say of them."""

    config_maps: dict[str, dict[str, bytes]]
    secrets: dict[str, dict[str, bytes]]
    downward: Downward
    fs_group: int | None
    report: Callable[[str], None]  # what is not honoured
    declared: list[Raw] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    pod_secrets: dict[str, bytes] = field(default_factory=dict)
    projected: dict[str, dict[str, Placed]] = field(default_factory=dict)  # volume -> path in it -> file

    def add(self, v: mv.Volume) -> None:
        """:raise InvalidArgument: a kind that has no counterpart, or a source that is not there."""
        given = [k for k in mv.Volume.__struct_fields__ if k != "name" and getattr(v, k) is not None]
        if not given:
            v = mv.Volume(name=v.name, empty_dir=mv.EmptyDir())  # what Kubernetes takes it for
        if len(given) > 1:
            raise InvalidArgument(f"volume {v.name!r} has more than one source", hint="keep one")
        if v.empty_dir is not None:
            self._empty(v.name, v.empty_dir)
        elif v.host_path is not None:
            _check_host_path(v.name, v.host_path)
            self.declared.append({"name": v.name, "format": "vfs", "source": v.host_path.path})
        elif v.nfs is not None:
            self.declared.append(
                {"name": v.name, "format": "nas", "source": f"{v.nfs.server}:{v.nfs.path}", "readOnly": v.nfs.read_only}
            )
        elif v.persistent_volume_claim is not None:
            claim = v.persistent_volume_claim
            self.declared.append(
                {"name": v.name, "format": "volume", "source": claim.claim_name, "readOnly": claim.read_only}
            )
            if self.fs_group is not None:
                self.report(f"volume {v.name}: fsGroup for a claim, whose files keep their groups")
        else:
            self._project(v)

    def _empty(self, name: str, empty: mv.EmptyDir) -> None:
        least = 0 if empty.medium == "Memory" else _DISK_MIN
        size = f"{max(int(quantity(empty.size_limit)), least)}b" if empty.size_limit is not None else 0
        # https://kubernetes.io/docs/concepts/storage/volumes/#emptydir: everybody may write into it.
        how = {"perm": "0777"} if self.fs_group is None else {"perm": "2777", "group": self.fs_group}
        if empty.medium not in ("", "Memory"):
            self.report(f"volume {name}: the medium {empty.medium}")
        self.declared.append(
            {"name": name, "size": size, **how, **({"format": "tmpfs"} if empty.medium == "Memory" else {})}
        )

    def _project(self, v: mv.Volume) -> None:
        places: dict[str, Placed] = {}
        self.projected[v.name] = places
        if v.projected is not None:
            for source in v.projected.sources:
                self._source(v.name, source, v.projected.default_mode, places)
        elif v.config_map or v.secret or v.downward_api is not None:
            self._source(
                v.name,
                mv.Projection(config_map=v.config_map, secret=v.secret, downward_api=v.downward_api),
                None,
                places,
            )
        else:
            kind = next(m_.encode_name for m_ in _fields(v))
            raise InvalidArgument(f"volume {v.name!r}: {kind} has no counterpart here", hint=f"use {_KNOWN}")

    def _source(self, name: str, p: mv.Projection, default: Any, places: dict[str, Placed]) -> None:
        if p.config_map:
            self._keys("ConfigMap", self.config_maps, p.config_map.name, p.config_map, default, places)
        if p.secret:
            self._keys("Secret", self.secrets, p.secret.secret_name or p.secret.name, p.secret, default, places)
        if p.downward_api is not None:
            for item in p.downward_api.items:
                content = self._about(name, item)
                called = f"{name}.{item.path}"
                self.files[called] = content.encode()
                places[item.path] = Placed(called, False, self._bits(item.mode, p.downward_api.default_mode, default))
        for kind, given in (
            ("serviceAccountToken", p.service_account_token),
            ("clusterTrustBundle", p.cluster_trust_bundle),
            ("podCertificate", p.pod_certificate),
        ):
            if given is not None:
                self.report(f"volume {name}: {kind}, which only a cluster has,")

    def _about(self, name: str, item: mv.DownwardItem) -> str:
        if item.field_ref:
            return self.downward.field(item.field_ref.field_path)
        if item.resource_field_ref:
            return self.downward.resource(item.resource_field_ref, None)
        raise InvalidArgument(f"volume {name!r}: {item.path} needs fieldRef or resourceFieldRef", hint="give one")

    def _keys(
        self,
        kind: str,
        known: dict[str, dict[str, bytes]],
        name: str,
        source: mv.ConfigMapSource | mv.SecretSource,
        default: Any,
        places: dict[str, Placed],
    ) -> None:
        if name not in known and not source.optional:
            raise InvalidArgument(
                f"the file has no {kind} {name!r}", hint="put it into the same file, after a line ---"
            )
        content = known.get(name, {})
        items = [mv.KeyToPath(key=k, path=k) for k in content] if source.items is None else source.items
        for item in items:
            if item.key not in content:
                if source.optional:
                    continue
                raise InvalidArgument(
                    f"the {kind} {name!r} has no key {item.key!r}",
                    hint=f"it has {', '.join(sorted(content)) or 'none'}",
                )
            called = f"{name}.{item.key}"
            (self.pod_secrets if kind == "Secret" else self.files)[called] = content[item.key]
            places[item.path] = Placed(called, kind == "Secret", self._bits(item.mode, source.default_mode, default))

    def _bits(self, *choices: Any) -> int:
        bits = next((mode(c) for c in choices if c is not None), _FILE_MODE)
        return bits | (0o040 if self.fs_group is not None else 0)  # the group of the volume may read it

    def mount(self, mount: m.VolumeMount, out: Raw, where: str) -> None:
        """:raise InvalidArgument: a volume that the Pod does not have."""
        if mount.name not in self.projected:
            declared = next((v for v in self.declared if v["name"] == mount.name), None)
            if declared is None:
                raise InvalidArgument(f"{where}: there is no volume {mount.name!r}", hint="define it below `volumes`")
            out["volumes"].append(
                {
                    "volume": mount.name,
                    "path": mount.mount_path,
                    "readOnly": mount.read_only,
                    "subPath": mount.sub_path,
                    "noCopy": True,
                    "propagation": _propagation(mount) if declared.get("format") == "vfs" else "",
                }
            )
            return
        for relative, placed in self.projected[mount.name].items():
            inside = mount.sub_path and relative.startswith(mount.sub_path.rstrip("/") + "/")
            if mount.sub_path and relative != mount.sub_path and not inside:
                continue
            rest = relative.removeprefix(mount.sub_path).lstrip("/")
            target = f"{mount.mount_path.rstrip('/')}/{rest}" if rest else mount.mount_path
            common = {"path": target, "perm": f"{placed.mode:04o}", "group": self.fs_group or 0}
            kind, key = ("secrets", "secret") if placed.secret else ("files", "filename")
            out[kind].append({key: placed.called, **common})


def _propagation(mount: m.VolumeMount) -> str:
    """Of a directory of this host: nothing is mounted below others.

    :raise InvalidArgument: what is mounted in the container shall come to this host.
    """
    if mount.mount_propagation == "Bidirectional":
        raise InvalidArgument(
            f"{mount.mount_path}: what is mounted in a virtual machine does not come to this host (Bidirectional)",
            hint="give HostToContainer, or leave mountPropagation out",
        )
    return "rslave" if mount.mount_propagation == "HostToContainer" else ""


def _fields(v: mv.Volume) -> list[Any]:
    return [f for f in msgspec.structs.fields(v) if f.name != "name" and getattr(v, f.name) is not None]


def _check_host_path(name: str, host: mv.HostPath) -> None:
    """Make what is to be made, as -v does; refuse what is not there.

    :raise InvalidArgument: what is there is of another kind.
    """
    path = Path(host.path)
    if host.type in ("Socket", "CharDevice", "BlockDevice"):
        raise InvalidArgument(
            f"volume {name!r}: a {host.type} of this host cannot be brought into a virtual machine",
            hint="use a file or directory",
        )
    if "\0" in host.path:
        raise InvalidArgument(f"volume {name!r}: invalid path {host.path!r}", hint="correct it")
    try:
        if host.type == "DirectoryOrCreate":
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        elif host.type == "FileOrCreate" and not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
        fits = {
            "Directory": path.is_dir,
            "DirectoryOrCreate": path.is_dir,
            "File": path.is_file,
            "FileOrCreate": path.is_file,
        }
        if not fits.get(host.type, lambda: True)():
            raise InvalidArgument(
                f"volume {name!r}: {path} is not there as a {host.type}", hint="create it, or correct the type"
            )
    except OSError as error:
        raise InvalidArgument(
            f"volume {name!r}: cannot make {path}: {error.strerror}", hint="make it yourself"
        ) from error
