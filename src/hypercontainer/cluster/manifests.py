# SPDX-License-Identifier: Apache-2.0
"""What a project's namespace consists of, as the API server takes it: functions of `Wanted`.

A quota of processors or memory needs limits in every Pod (kubernetes.io/docs/concepts/policy/resource-quotas), so a
LimitRange gives those of the smallest sizes to who says none.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ..model.cluster import ORGANISATION, PROJECT, PROJECT_NAME, RUNTIME_CLASS_OF, namespace_of
from .port import Wanted

DIGEST = "hypercontainer.io/digest"
_MANAGED = {"app.kubernetes.io/managed-by": "hyperd"}
_NAME = "hyper"  # of all that is in it
_RBAC = "rbac.authorization.k8s.io"
_LIMITS = {"cpu": "1", "memory": "128Mi"}  # of a container that says none, where there are quotas of these
Manifest = tuple[str, dict[str, Any]]  # a path of the API server's, and what is to be there


def manifests(wanted: Wanted) -> list[Manifest]:
    """In the order in which they are made; the namespace, which says the digest of all, is first and last."""
    name = namespace_of(wanted.project)
    parts = [
        *_access(name, wanted),
        _in(name, "api/v1", "resourcequotas", _NAME, {"kind": "ResourceQuota", "spec": {"hard": hard(wanted)}}),
        _in(name, "api/v1", "limitranges", _NAME, {"kind": "LimitRange", "spec": {"limits": _limits(wanted)}}),
        _in(name, "apis/networking.k8s.io/v1", "networkpolicies", _NAME, _ONLY_AMONG_THEMSELVES),
    ]
    plain = _namespace(name, wanted)
    made_from = hashlib.sha256(json.dumps([plain, *parts], sort_keys=True).encode()).hexdigest()
    whole = {**plain[1], "metadata": {**plain[1]["metadata"], "annotations": {DIGEST: made_from}}}
    return [plain, *parts, (plain[0], whole)]


def digest(wanted: Wanted) -> str:
    """Of all of it."""
    found: str = manifests(wanted)[-1][1]["metadata"]["annotations"][DIGEST]
    return found


def hard(wanted: Wanted) -> dict[str, str]:
    """Of a ResourceQuota. What else there are quotas of has no counterpart in a cluster."""
    quota = wanted.quota
    given = {
        "pods": 0 if wanted.closed else quota.pods, "limits.cpu": quota.vcpus, "limits.memory": quota.memory,
        "requests.storage": quota.disk, "persistentvolumeclaims": quota.volumes,
    }  # fmt: skip
    return {name: str(limit) for name, limit in given.items() if limit is not None}


def _limits(wanted: Wanted) -> list[dict[str, Any]]:
    quotas = {"cpu": wanted.quota.vcpus, "memory": wanted.quota.memory}
    given = {name: _LIMITS[name] for name, limit in quotas.items() if limit is not None}
    return [{"type": "Container", "default": given}] if given else []


def _namespace(name: str, wanted: Wanted) -> Manifest:
    level = "privileged" if wanted.privileged else "baseline"
    labels = {
        **_MANAGED, PROJECT: wanted.project, PROJECT_NAME: wanted.name[:63], ORGANISATION: wanted.organisation[:63],
        "pod-security.kubernetes.io/enforce": level,
    }  # fmt: skip
    if wanted.runtime_class:
        labels[RUNTIME_CLASS_OF] = wanted.runtime_class
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    return f"/api/v1/namespaces/{name}", made


def _access(name: str, wanted: Wanted) -> list[Manifest]:
    """By the roles that each cluster has (kubernetes.io/docs/reference/access-authn-authz/rbac#user-facing-roles)."""
    return [
        _in(name, f"apis/{_RBAC}/v1", "rolebindings", f"{_NAME}-{role}", {
            "kind": "RoleBinding",
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": _RBAC, "kind": "User", "name": user} for user in users],
        })
        for role, users in (("edit", wanted.editors), ("view", wanted.viewers))
    ]  # fmt: skip


_ONLY_AMONG_THEMSELVES = {
    "kind": "NetworkPolicy",
    "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {}}]}]},
}


def _in(namespace: str, api: str, kind: str, name: str, what: dict[str, Any]) -> Manifest:
    made = {
        "apiVersion": api.removeprefix("apis/").removeprefix("api/"),
        "metadata": {"name": name, "namespace": namespace, "labels": _MANAGED}, **what,
    }  # fmt: skip
    return f"/{api}/namespaces/{namespace}/{kind}/{name}", made
