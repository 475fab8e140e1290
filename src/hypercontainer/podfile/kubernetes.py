# SPDX-License-Identifier: Apache-2.0
"""`kind: Pod` as a podfile, with the ConfigMaps and Secrets of the same file.

Fields of https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/.
What has no meaning in one pod on one host is named, not dropped in silence.
"""

from __future__ import annotations

import base64
import re
from typing import Any

from ..errors import InvalidArgument
from ..model.units import parse_size
from . import strict
from .load import Loaded

Raw = dict[str, Any]
_MIB = 1 << 20
# Of no consequence here; they are not worth a line each.
_SILENT_SPEC = {"nodeName", "schedulerName", "serviceAccountName", "serviceAccount", "enableServiceLinks", "preemptionPolicy",
                "priority", "tolerations", "automountServiceAccountToken"}  # fmt: skip
_SILENT_CONTAINER = {"imagePullPolicy", "terminationMessagePath", "terminationMessagePolicy"}
_DECIMAL = {"m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def from_manifests(documents: list[Raw]) -> Loaded:
    """:raise InvalidArgument: more than one Pod, or what a Pod cannot have."""
    pods = [d for d in documents if d.get("kind") == "Pod"]
    if len(pods) != 1:
        raise InvalidArgument(f"the file has {len(pods)} Pods", hint="keep one per file")
    return _Translation(pods[0], [d for d in documents if d is not pods[0]]).result()


def quantity(value: Any) -> float:
    """`500m`, `128Mi`, `1G` as a number (Kubernetes' resource.Quantity).

    :raise InvalidArgument: when it is none.
    """
    text = str(value)
    if re.fullmatch(r"[0-9.]+[KMGT]i", text):
        return float(parse_size(text[:-1]))
    match = re.fullmatch(r"([0-9.]+)([mkMGT]?)", text)
    if not match:
        raise InvalidArgument(f"invalid quantity {text!r}", hint="write it as 500m, 128Mi or 1")
    return float(match[1]) * _DECIMAL[match[2]]


class _Translation:
    """One Pod."""

    def __init__(self, pod: Raw, others: list[Raw]) -> None:
        self.unmapped: list[str] = []
        self.meta: Raw = pod.get("metadata") or {}
        self.spec: Raw = dict(pod.get("spec") or {})
        self.name = self.meta.get("name") or "pod"
        self.config_maps = {d["metadata"]["name"]: self._data(d) for d in others if d.get("kind") == "ConfigMap"}
        self.secrets = {d["metadata"]["name"]: self._data(d) for d in others if d.get("kind") == "Secret"}
        self.unmapped += [f"kind {d.get('kind')}" for d in others if d.get("kind") not in ("ConfigMap", "Secret")]
        self.volumes: list[Raw] = []
        self.files: dict[str, str] = {}  # name -> base64
        self.pod_secrets: dict[str, str] = {}
        self.projected: dict[str, tuple[str, dict[str, str]]] = {}  # volume -> (files or secrets, path -> name)

    @staticmethod
    def _data(document: Raw) -> dict[str, bytes]:
        plain = {k: str(v).encode() for k, v in {**(document.get("data") or {}), **(document.get("stringData") or {})}.items()}
        if document.get("kind") == "Secret":
            plain |= {k: base64.b64decode(v) for k, v in (document.get("data") or {}).items()}
        return plain | {k: base64.b64decode(v) for k, v in (document.get("binaryData") or {}).items()}

    def result(self) -> Loaded:
        spec = self.spec
        for volume in self._take("volumes", []):
            self._volume(volume)
        ports: list[Raw] = []
        init = [self._container(c, ports, init=True) for c in self._take("initContainers", [])]
        containers = [self._container(c, ports) for c in self._take("containers", [])]
        restart = {"Always": "always", "OnFailure": "onFailure", "Never": "never"}[self._take("restartPolicy", "Always")]
        dns = self._take("dnsConfig", {}) or {}
        sysctls = {s["name"]: str(s["value"]) for s in (self._take("securityContext", {}) or {}).get("sysctls", [])}
        podfile: Raw = {
            "id": self.name, "hostname": self._take("hostname", ""), "labels": self.meta.get("labels") or {},
            "restartPolicy": restart, "initContainers": init, "containers": containers, "volumes": self.volumes,
            "files": [{"name": n, "encoding": "base64", "content": c} for n, c in self.files.items()],
            "secrets": [{"name": n, "content": c} for n, c in self.pod_secrets.items()], "portmappings": ports,
            "dns": dns.get("nameservers") or [], "dnsSearch": dns.get("searches") or [],
            "dnsOptions": [o["name"] + (f":{o['value']}" if o.get("value") else "") for o in dns.get("options") or []],
            "hosts": [{"ip": a["ip"], "names": a["hostnames"]} for a in self._take("hostAliases", [])], "sysctls": sysctls,
        }  # fmt: skip
        grace = self._take("terminationGracePeriodSeconds", None)
        if grace is not None:
            for c in [*init, *containers]:
                c["stopTimeout"] = grace
        self.unmapped += [f"spec.{k}" for k in spec if k not in _SILENT_SPEC]
        return Loaded(strict.decode(podfile), self.unmapped)

    def _take(self, key: str, default: Any) -> Any:
        value = self.spec.pop(key, default)
        return default if value is None else value

    # -- volumes ------------------------------------------------------------------

    def _volume(self, v: Raw) -> None:
        name = v["name"]
        if (empty := v.get("emptyDir", ...)) is not ...:
            empty = empty or {}
            size = int(quantity(empty["sizeLimit"]) // _MIB) if empty.get("sizeLimit") else 0
            self.volumes.append({"name": name, "size": size, **({"format": "tmpfs"} if empty.get("medium") == "Memory" else {})})
        elif host := v.get("hostPath"):
            self.volumes.append({"name": name, "format": "vfs", "source": host["path"]})
        elif nfs := v.get("nfs"):
            source = f"{nfs['server']}:{nfs['path']}"
            self.volumes.append({"name": name, "format": "nas", "source": source, "readOnly": nfs.get("readOnly", False)})
        elif claim := v.get("persistentVolumeClaim"):
            self.volumes.append({"name": name, "format": "volume", "source": claim["claimName"]})
        elif config := v.get("configMap"):
            self.projected[name] = ("files", self._project(config, config["name"], self.config_maps, "ConfigMap"))
        elif secret := v.get("secret"):
            self.projected[name] = ("secrets", self._project(secret, secret["secretName"], self.secrets, "Secret"))
        else:
            kind = next((k for k in v if k != "name"), "?")
            raise InvalidArgument(f"volume {name!r}: {kind} has no counterpart here", hint="use emptyDir, hostPath, nfs or a claim")

    def _project(self, source: Raw, name: str, known: dict[str, dict[str, bytes]], kind: str) -> dict[str, str]:
        if name not in known:
            raise InvalidArgument(f"the file has no {kind} {name!r}", hint="put it into the same file, after a line ---")
        items = source.get("items") or [{"key": k, "path": k} for k in known[name]]
        out = {}
        for item in items:
            content, called = known[name][item["key"]], f"{name}.{item['key']}"
            if kind == "Secret":
                self.pod_secrets[called] = content.decode()
            else:
                self.files[called] = base64.b64encode(content).decode()
            out[item["path"]] = called
        return out

    # -- containers -----------------------------------------------------------------

    def _container(self, raw: Raw, ports: list[Raw], *, init: bool = False) -> Raw:
        c = dict(raw)
        where = f"containers[{c.get('name')}]"
        out: Raw = {"name": f"{self.name}-{c['name']}", "aliases": [c.pop("name")], "image": c.pop("image")}
        for theirs, ours in (("command", "entrypoint"), ("args", "command"), ("workingDir", "workdir"), ("tty", "tty"), ("stdin", "stdin")):
            if c.get(theirs) is not None:
                out[ours] = c.pop(theirs)
        out["envs"] = [e for raw_env in c.pop("env", None) or [] if (e := self._env(raw_env, where))]
        for source in c.pop("envFrom", None) or []:
            out["envs"] += self._env_from(source)
        out["volumes"], out["files"], out["secrets"] = [], [], []
        for mount in c.pop("volumeMounts", None) or []:
            self._mount(mount, out)
        for port in c.pop("ports", None) or []:
            if port.get("hostPort"):
                ports.append({"hostPort": port["hostPort"], "containerPort": port["containerPort"],
                              "protocol": port.get("protocol", "TCP").lower(), "hostIP": port.get("hostIP", "")})  # fmt: skip
        limits = (c.pop("resources", None) or {}).get("limits") or {}
        out["limits"] = {"cpus": quantity(limits.get("cpu", 0)), "memory": int(quantity(limits.get("memory", 0)) // _MIB)}
        self._probes(c, out, where)
        self._security(c.pop("securityContext", None) or {}, out, where)
        if c.get("restartPolicy") == "Always" and init:
            self.unmapped.append(f"{where}.restartPolicy")
            c.pop("restartPolicy")
        self.unmapped += [f"{where}.{k}" for k in c if k not in _SILENT_CONTAINER]
        return out

    def _env(self, env: Raw, where: str) -> Raw | None:
        if "valueFrom" not in env:
            return {"env": env["name"], "value": env.get("value", "")}
        source = env["valueFrom"]
        for key, known in (("configMapKeyRef", self.config_maps), ("secretKeyRef", self.secrets)):
            if ref := source.get(key):
                try:
                    return {"env": env["name"], "value": known[ref["name"]][ref["key"]].decode()}
                except KeyError:
                    raise InvalidArgument(f"{where}: {key} {ref['name']}/{ref['key']} is not in the file", hint="add it") from None
        fields = {"metadata.name": self.name, "status.podIP": "127.0.0.1", "status.hostIP": "10.0.2.2"}
        path = (source.get("fieldRef") or {}).get("fieldPath", "")
        if path in fields:
            return {"env": env["name"], "value": fields[path]}
        self.unmapped.append(f"{where}.env[{env['name']}].valueFrom")
        return None

    def _env_from(self, source: Raw) -> list[Raw]:
        prefix = source.get("prefix", "")
        for key, known in (("configMapRef", self.config_maps), ("secretRef", self.secrets)):
            if ref := source.get(key):
                return [{"env": prefix + k, "value": v.decode()} for k, v in known.get(ref["name"], {}).items()]
        return []

    def _mount(self, mount: Raw, out: Raw) -> None:
        name, path = mount["name"], mount["mountPath"]
        if name not in self.projected:
            out["volumes"].append({"volume": name, "path": path, "readOnly": mount.get("readOnly", False),
                                   "subPath": mount.get("subPath", ""), "noCopy": True})  # fmt: skip
            return
        kind, entries = self.projected[name]
        for relative, called in entries.items():
            if mount.get("subPath") and mount["subPath"] != relative:
                continue
            target = path if mount.get("subPath") else f"{path.rstrip('/')}/{relative}"
            if kind == "files":
                out["files"].append({"path": target, "filename": called, "perm": "0644"})
            else:
                out["secrets"].append({"secret": called, "path": target, "perm": "0444"})

    def _probes(self, c: Raw, out: Raw, where: str) -> None:
        startup = c.pop("startupProbe", None)
        delay = startup.get("failureThreshold", 3) * startup.get("periodSeconds", 10) if startup else 0
        readiness, liveness = c.pop("readinessProbe", None), c.pop("livenessProbe", None)
        if readiness or startup:
            out["healthCheck"] = self._probe(readiness or startup, delay, where)
        if liveness:
            out["livenessCheck"] = self._probe(liveness, delay, where)

    def _probe(self, probe: Raw, delay: int, where: str) -> Raw:
        check: Raw = {
            "interval": probe.get("periodSeconds", 10), "timeout": probe.get("timeoutSeconds", 1), "retries": probe.get("failureThreshold", 3),
            "startPeriod": probe.get("initialDelaySeconds", 0) + delay, "startInterval": probe.get("periodSeconds", 10),
        }  # fmt: skip
        if http := probe.get("httpGet"):
            if http.get("scheme", "HTTP") != "HTTP":
                self.unmapped.append(f"{where}: a probe's scheme {http['scheme']}")
            headers = {h["name"]: h["value"] for h in http.get("httpHeaders") or []}
            check["http"] = {"port": http["port"], "path": http.get("path", "/"), "headers": headers}
        elif tcp := probe.get("tcpSocket"):
            check["tcp"] = {"port": tcp["port"]}
        elif run := probe.get("exec"):
            check["command"] = run["command"]
        else:
            raise InvalidArgument(f"{where}: a probe needs httpGet, tcpSocket or exec", hint="grpc has no counterpart here")
        return check

    def _security(self, context: Raw, out: Raw, where: str) -> None:
        context = dict(context)
        user, group = context.pop("runAsUser", ""), context.pop("runAsGroup", "")
        if user != "" or group != "":
            out["user"] = {"name": user, "group": group}
        capabilities = context.pop("capabilities", None) or {}
        out["capabilities"] = {"add": capabilities.get("add") or [], "drop": capabilities.get("drop") or []}
        out["readOnly"] = context.pop("readOnlyRootFilesystem", False)
        out["privileged"] = context.pop("privileged", False)
        out["noNewPrivileges"] = context.pop("allowPrivilegeEscalation", True) is False
        self.unmapped += [f"{where}.securityContext.{k}" for k in context if k != "runAsNonRoot"]
