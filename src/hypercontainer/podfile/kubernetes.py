# SPDX-License-Identifier: Apache-2.0
"""`kind: Pod` as a podfile, with the ConfigMaps and Secrets of the same file.

What has no meaning in one pod on one host is named, not dropped in silence;
what would make the pod less safe than its author asked for is refused.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from ..errors import InvalidArgument
from . import manifest as m
from . import strict
from .downward import Downward, quantity, text
from .load import Loaded
from .projection import Volumes, content_of

Raw = dict[str, Any]
# Of no consequence here; they are not worth a line each.
_SILENT_SPEC = {
    "node_name",
    "scheduler_name",
    "service_account_name",
    "service_account",
    "enable_service_links",
    "preemption_policy",
    "priority",
    "tolerations",
    "automount_service_account_token",
    "priority_class_name",
    "host_users",
}
_SILENT_CONTAINER = {
    "image_pull_policy",
    "termination_message_path",
    "termination_message_policy",
    "stdin_once",
    "resize_policy",
}
_RESTART = {"Always": "always", "OnFailure": "onFailure", "Never": "never"}


def from_manifests(documents: list[Raw]) -> Loaded:
    """:raise InvalidArgument: none or more than one Pod, or what a Pod cannot have."""
    everything: list[Raw] = []
    for d in documents:
        items = d.get("items") if d.get("kind") == "List" else [d]
        if not isinstance(items, list) or not all(isinstance(i, dict) for i in items):
            raise InvalidArgument("the items of a List are no objects", hint="correct them")
        everything += items
    pods = [d for d in everything if d.get("kind") == "Pod"]
    if not pods:
        kind = next(
            (str(d["kind"]) for d in everything if d.get("kind") not in (None, "ConfigMap", "Secret")), "ConfigMap"
        )
        hint = (
            "write the Pod that its template describes as kind: Pod" if _has_template(everything) else "add a kind: Pod"
        )
        raise InvalidArgument(f"the file has a {kind} and no Pod, and only a cluster makes Pods of it", hint=hint)
    if len(pods) != 1:
        raise InvalidArgument(f"the file has {len(pods)} Pods", hint="keep one per file")
    return _Translation(pods[0], [d for d in everything if d is not pods[0]]).result()


def _has_template(documents: list[Raw]) -> bool:
    return any(
        isinstance(d.get("spec"), dict) and ("template" in d["spec"] or "jobTemplate" in d["spec"]) for d in documents
    )


def _given(part: msgspec.Struct, known: set[str]) -> list[str]:
    """The keys that say something and are not known."""
    return [
        f.encode_name
        for f in msgspec.structs.fields(part)
        if f.name not in known and getattr(part, f.name) not in (f.default, None, "")
    ]


class _Translation:
    """One Pod."""

    def __init__(self, pod: Raw, others: list[Raw]) -> None:
        self.unmapped: list[str] = []
        self.pod = strict.decode(pod, m.Pod, "Pod")
        self.name = self.pod.metadata.name or "pod"
        data = [strict.decode(d, m.Data, str(d["kind"])) for d in others if d.get("kind") in ("ConfigMap", "Secret")]
        self.config_maps = {d.metadata.name: content_of(d) for d in data if d.kind == "ConfigMap"}
        self.secrets = {d.metadata.name: content_of(d) for d in data if d.kind == "Secret"}
        self.unmapped += [f"kind {d.get('kind')}" for d in others if d.get("kind") not in ("ConfigMap", "Secret")]
        self.downward = Downward(self.name, self.pod)
        self.context = self.pod.spec.security_context
        self.volumes = Volumes(
            config_maps=self.config_maps,
            secrets=self.secrets,
            downward=self.downward,
            fs_group=self.context.fs_group,
            report=self.unmapped.append,
        )
        self.ports: list[Raw] = []

    def result(self) -> Loaded:
        spec = self.pod.spec
        for volume in spec.volumes:
            self.volumes.add(volume)
        self._pod_security()
        sidecars = [c for c in spec.init_containers if c.restart_policy == "Always"]
        init = [self._container(c) for c in spec.init_containers if c.restart_policy != "Always"]
        beside = [self._container(c) | {"restartPolicy": "always"} for c in sidecars]
        containers = beside + [
            self._container(c) | ({"dependsOn": [{"container": s.name} for s in sidecars]} if sidecars else {})
            for c in spec.containers
        ]
        if spec.termination_grace_period_seconds is not None:
            for out in [*init, *containers]:
                out["stopTimeout"] = spec.termination_grace_period_seconds
        dns = spec.dns_config
        podfile: Raw = {
            "id": self.name,
            "hostname": spec.hostname,
            "labels": {k: text(v) for k, v in self.pod.metadata.labels.items()},
            "restartPolicy": _RESTART[spec.restart_policy],
            "pid": "pod" if spec.share_process_namespace else "container",
            "initContainers": init,
            "containers": containers,
            "volumes": self.volumes.declared,
            "files": [_encoded(n, c) for n, c in self.volumes.files.items()],
            "secrets": [_encoded(n, c) for n, c in self.volumes.pod_secrets.items()],
            "portmappings": self.ports,
            "dns": dns.nameservers,
            "dnsSearch": dns.searches,
            "dnsOptions": [o.name + (f":{text(o.value)}" if o.value not in (None, "") else "") for o in dns.options],
            "hosts": [{"ip": a.ip, "names": a.hostnames} for a in spec.host_aliases],
            "sysctls": {s.name: text(s.value) for s in self.context.sysctls},
        }
        known = {
            "containers",
            "init_containers",
            "volumes",
            "restart_policy",
            "hostname",
            "dns_config",
            "host_aliases",
            "security_context",
            "termination_grace_period_seconds",
            "share_process_namespace",
            *_SILENT_SPEC,
        }
        self.unmapped += [f"spec.{k}" for k in _given(spec, known)]
        return Loaded(strict.decode(podfile, what="Pod"), self.unmapped)

    # -- security -------------------------------------------------------------------

    def _refuse(self, what: str, given: Any) -> None:
        """:raise InvalidArgument: when it is given: the pod would be less safe than asked for."""
        if given is not None:
            raise InvalidArgument(
                f"Pod: {what} cannot be enforced here, so this Pod does not run",
                hint="leave it out if the virtual machine is enough",
            )

    def _profile(self, what: str, profile: m.Profile | None) -> None:
        """Of AppArmor."""
        if profile is not None and profile.type == "Localhost":
            self._refuse(f"{what} of this host", profile)
        if profile is not None and profile.type == "RuntimeDefault":
            self.unmapped.append(what)

    def _pod_security(self) -> None:
        c, where = self.context, "spec.securityContext"
        self._refuse(f"{where}.seLinuxOptions", c.se_linux_options)
        self._refuse(f"{where}.windowsOptions", c.windows_options)
        self._profile(f"{where}.appArmorProfile", c.app_armor_profile)
        if c.supplemental_groups_policy == "Strict":
            self._refuse(f"{where}.supplementalGroupsPolicy", c.supplemental_groups_policy)

    def _security(self, c: m.SecurityContext, out: Raw, where: str) -> None:
        self._refuse(f"{where}.seLinuxOptions", c.se_linux_options)
        self._refuse(f"{where}.windowsOptions", c.windows_options)
        self._profile(f"{where}.appArmorProfile", c.app_armor_profile)
        user = self.context.run_as_user if c.run_as_user is None else c.run_as_user
        group = self.context.run_as_group if c.run_as_group is None else c.run_as_group
        groups = [
            *self.context.supplemental_groups,
            *([] if self.context.fs_group is None else [self.context.fs_group]),
        ]
        out["user"] = {
            "name": "" if user is None else user,
            "group": "" if group is None else group,
            "additionalGroups": groups,
        }
        out["nonRoot"] = bool(self.context.run_as_non_root if c.run_as_non_root is None else c.run_as_non_root)
        # Kubernetes' names of capabilities may have the prefix.
        out["capabilities"] = {"add": c.capabilities.add, "drop": c.capabilities.drop}
        out["readOnly"], out["privileged"] = c.read_only_root_filesystem, c.privileged
        profile = c.seccomp_profile or self.context.seccomp_profile
        out["seccomp"] = "unconfined" if profile and profile.type == "Unconfined" else "default"
        if profile and profile.type == "Localhost" and not out["privileged"]:
            if not profile.localhost_profile:
                raise InvalidArgument(f"Pod: {where}.seccompProfile is of the type Localhost and names no file",
                                      hint="give localhostProfile, a path beside this file")  # fmt: skip
            out["seccompProfile"] = profile.localhost_profile
        out["noNewPrivileges"] = c.allow_privilege_escalation is False
        if c.proc_mount != "Default":
            self.unmapped.append(f"{where}.procMount")

    # -- containers -----------------------------------------------------------------

    def _container(self, c: m.Container) -> Raw:
        where = f"containers[{c.name}]"
        out: Raw = {
            "name": f"{self.name}-{c.name}",
            "aliases": [c.name],
            "image": c.image,
            "entrypoint": c.command,
            "command": c.args,
            "workdir": c.working_dir,
            "tty": c.tty,
            "stdin": c.stdin,
            "expand": True,
            "envs": self._environment(c, where),
            "volumes": [],
            "files": [],
            "secrets": [],
        }
        for mount in c.volume_mounts:
            if mount.sub_path_expr:
                raise InvalidArgument(
                    f"Pod: {where}: subPathExpr has no counterpart here", hint="write the path as subPath"
                )
            self.volumes.mount(mount, out, where)
        for port in c.ports:
            if port.host_port:
                self.ports.append(
                    {
                        "hostPort": port.host_port,
                        "containerPort": port.container_port,
                        "protocol": port.protocol.lower(),
                        "hostIP": port.host_ip,
                    }
                )
        limits = c.resources.limits
        out["limits"] = {"cpus": quantity(limits.get("cpu", 0)), "memory": f"{int(quantity(limits.get('memory', 0)))}b"}
        self.unmapped += [f"{where}.resources.limits.{k}" for k in limits if k not in ("cpu", "memory")]
        self._probes(c, out, where)
        self._security(c.security_context, out, f"{where}.securityContext")
        self._lifetime(c, where)
        return out

    def _lifetime(self, c: m.Container, where: str) -> None:
        known = {
            "name",
            "image",
            "command",
            "args",
            "working_dir",
            "env",
            "env_from",
            "volume_mounts",
            "ports",
            "resources",
            "readiness_probe",
            "liveness_probe",
            "startup_probe",
            "security_context",
            "tty",
            "stdin",
            *_SILENT_CONTAINER,
        }
        known |= {"restart_policy"} if c.restart_policy in ("", "Always") else set()
        self.unmapped += [f"{where}.{k}" for k in _given(c, known)]

    def _environment(self, c: m.Container, where: str) -> list[Raw]:
        found: dict[str, Raw] = {}
        for source in c.env_from:
            for key, ref, known in (
                ("ConfigMap", source.config_map_ref, self.config_maps),
                ("Secret", source.secret_ref, self.secrets),
            ):
                if ref is None:
                    continue
                if ref.name not in known and not ref.optional:
                    raise InvalidArgument(
                        f"{where}: the file has no {key} {ref.name!r}",
                        hint="put it into the same file, after a line ---",
                    )
                for k, v in known.get(ref.name, {}).items():
                    found[source.prefix + k] = {
                        "env": source.prefix + k,
                        "value": _readable(v, f"{where}: {key} {ref.name}/{k}"),
                    }
        for env in c.env:
            entry = self._env(env, c, where)
            if entry is not None:
                found.pop(env.name, None)
                found[env.name] = {"env": env.name, **entry}
        return list(found.values())

    def _env(self, env: m.Env, c: m.Container, where: str) -> Raw | None:
        """None for an optional one that is not there."""
        source = env.value_from
        if source is None:
            return {"value": text(env.value)}
        for key, ref, known in (
            ("configMapKeyRef", source.config_map_key_ref, self.config_maps),
            ("secretKeyRef", source.secret_key_ref, self.secrets),
        ):
            if ref is None:
                continue
            if ref.key not in known.get(ref.name, {}):
                if ref.optional:
                    return None
                raise InvalidArgument(f"{where}: {key} {ref.name}/{ref.key} is not in the file", hint="add it")
            return {"value": _readable(known[ref.name][ref.key], f"{where}: {key} {ref.name}/{ref.key}")}
        if source.field_ref:
            path = source.field_ref.field_path
            if path in ("status.podIP", "status.podIPs"):
                return {"field": "podIP"}
            if path in ("status.hostIP", "status.hostIPs"):
                return {"field": "hostIP"}
            return {"value": self.downward.field(path)}
        if source.resource_field_ref:
            return {"value": self.downward.resource(source.resource_field_ref, c)}
        self.unmapped.append(f"{where}.env[{env.name}].valueFrom")
        return None

    # -- probes ---------------------------------------------------------------------

    def _probes(self, c: m.Container, out: Raw, where: str) -> None:
        startup = c.startup_probe
        delay = startup.failure_threshold * startup.period_seconds if startup else 0
        if probe := c.readiness_probe or startup:
            out["healthCheck"] = self._probe(probe, delay, c, where)
        if c.liveness_probe:
            out["livenessCheck"] = self._probe(c.liveness_probe, delay, c, where)

    def _probe(self, probe: m.Probe, delay: int, c: m.Container, where: str) -> Raw:
        check: Raw = {
            "interval": probe.period_seconds, "timeout": probe.timeout_seconds, "retries": probe.failure_threshold,
            "startPeriod": probe.initial_delay_seconds + delay, "startInterval": probe.period_seconds,
        }  # fmt: skip
        if probe.success_threshold > 1:
            self.unmapped.append(f"{where}: a probe's successThreshold")
        http, tcp = probe.http_get, probe.tcp_socket
        if http and http.scheme == "HTTPS":
            self.unmapped.append(f"{where}: a probe's scheme HTTPS, whose port is only connected to,")
            tcp, http = m.TcpSocket(port=http.port, host=http.host), None
        if http:
            address = {"address": http.host} if http.host else {}
            headers = {h.name: h.value for h in http.http_headers}
            check["http"] = {"port": _port(http.port, c, where), "path": http.path, "headers": headers, **address}
        elif tcp:
            check["tcp"] = {"port": _port(tcp.port, c, where), **({"address": tcp.host} if tcp.host else {})}
        elif probe.exec:
            check["command"] = probe.exec.command
        else:
            raise InvalidArgument(
                f"{where}: a probe needs httpGet, tcpSocket or exec", hint="grpc has no counterpart here"
            )
        return check


def _port(port: int | str, c: m.Container, where: str) -> int:
    """By its number, or by the name that the container gives it."""
    if isinstance(port, int):
        return port
    found = next((p.container_port for p in c.ports if p.name == port), None)
    if found is None:
        named = ", ".join(p.name for p in c.ports if p.name)
        raise InvalidArgument(
            f"{where}: a probe's port {port!r} is the name of none", hint=f"its ports are {named or 'without names'}"
        )
    return found


def _readable(value: bytes, what: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidArgument(f"{what} is no text, as a variable must be", hint="mount it as a file") from None


def _encoded(name: str, content: bytes) -> Raw:
    return {"name": name, "encoding": "base64", "content": base64.b64encode(content).decode()}
