# SPDX-License-Identifier: Apache-2.0
"""The API server of a cluster, by Kubernetes' own client, whose calls block and so are made in threads.

What is to be there is applied by the server (kubernetes.io/docs/reference/using-api/server-side-apply), which both
makes and changes, and leaves what others have added.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from ..errors import HyperError, NotFound, PermissionDenied, Unavailable
from ..model.cluster import PROJECT, ClusterPod, namespace_of
from ..sys import clock, tasks
from .manifests import DIGEST, manifests
from .port import Wanted

_TIMEOUT = 30.0  # seconds for an answer
_GONE = 60.0  # seconds for a namespace's end
_TURN = 0.5  # seconds between looks at it
_APPLY = urlencode({"fieldManager": "hyperd", "force": "true"})
_LABEL = "hypercontainer.io/node=true"  # of nodes with a hyperd; deploy/kubernetes/daemonset.yaml


class ApiServer:
    """A `Cluster`."""

    def __init__(self, kubeconfig: str, context: str = "") -> None:
        """:raise Unavailable: the client is not installed, or the file leads to no cluster."""
        try:
            from kubernetes import client, config
        except ImportError:
            raise Unavailable(
                "Kubernetes' client for Python is not installed", hint="pip install 'hypercontainer[kubernetes]'"
            ) from None
        found = client.Configuration()
        try:
            config.load_kube_config(kubeconfig or None, context or None, client_configuration=found)
        except (config.ConfigException, OSError) as error:
            raise Unavailable(f"cluster.kubeconfig {kubeconfig} leads to no cluster: {error}") from None
        found.retries = False
        self._configuration = found
        self._pool = client.ApiClient(found).rest_client.pool_manager  # whose names are those of all versions

    async def namespaces(self) -> Mapping[str, str]:
        """Of projects, by their ids."""
        found = await self._list("/api/v1/namespaces", PROJECT)
        named = [n["metadata"] for n in found]
        return {
            m["labels"][PROJECT]: (m.get("annotations") or {}).get(DIGEST, "")
            for m in named if m["name"] == namespace_of(m["labels"][PROJECT])
        }  # fmt: skip

    async def put(self, wanted: Wanted) -> None:
        """One after another; that of all is told by the last."""
        for path, manifest in manifests(wanted):
            await self._ask("PATCH", f"{path}?{_APPLY}", manifest)

    async def remove(self, project: str) -> None:
        """With all that is in it."""
        path = f"/api/v1/namespaces/{namespace_of(project)}"
        until = clock.seconds() + _GONE
        try:
            while clock.seconds() < until:
                await self._ask("DELETE", path)
                await asyncio.sleep(_TURN)
        except NotFound:
            return
        raise Unavailable(f"the namespace {namespace_of(project)} has not ended within {_GONE:g} s", hint="try again")

    async def pods(self, project: str) -> list[ClusterPod]:
        """By their names."""
        return sorted(map(_pod, await self._list(f"/api/v1/namespaces/{namespace_of(project)}/pods")),
                      key=lambda p: p.name)  # fmt: skip

    async def delete_pod(self, project: str, name: str) -> None:
        """Its grace is its own."""
        await self._ask("DELETE", _path(project, name))

    async def log(self, project: str, name: str, lines: int) -> str:
        """Of its first container."""
        pod = await self._ask("GET", _path(project, name))
        query = urlencode({"tailLines": lines, "container": pod["spec"]["containers"][0]["name"]})
        found = await self._ask("GET", f"{_path(project, name)}/log?{query}", plain=True)
        return str(found)

    async def addresses(self) -> Mapping[str, str]:
        """Those within the cluster, of nodes that have a hyperd."""
        return {
            node["metadata"]["name"]: address["address"]
            for node in await self._list("/api/v1/nodes", _LABEL)
            for address in node["status"].get("addresses", []) if address["type"] == "InternalIP"
        }  # fmt: skip

    async def _list(self, path: str, label: str = "") -> list[dict[str, Any]]:
        found = await self._ask("GET", f"{path}?{urlencode({'labelSelector': label})}" if label else path)
        items: list[dict[str, Any]] = found["items"]
        return items

    async def _ask(self, method: str, path: str, body: Any = None, *, plain: bool = False) -> Any:
        return await tasks.in_thread(lambda: self._call(method, path, body, plain=plain))

    def _call(self, method: str, path: str, body: Any, *, plain: bool) -> Any:
        from urllib3.exceptions import HTTPError

        headers = {"Accept": "*/*" if plain else "application/json"}
        headers |= {each["key"]: each["value"] for each in self._configuration.auth_settings().values()}
        if body is not None:
            headers["Content-Type"] = "application/apply-patch+yaml"  # JSON is YAML, too
        try:
            answer = self._pool.request(
                method, f"{self._configuration.host}{path}", headers=headers, redirect=False, timeout=_TIMEOUT,
                body=None if body is None else json.dumps(body),
            )  # fmt: skip
            if answer.status >= 300:
                raise _explained(answer.status, answer.data)
            return answer.data.decode(errors="replace") if plain else json.loads(answer.data)
        except (HTTPError, OSError, ValueError) as error:
            raise Unavailable(f"the cluster does not answer: {getattr(error, 'reason', None) or error}") from None


def _path(project: str, name: str) -> str:
    return f"/api/v1/namespaces/{namespace_of(project)}/pods/{quote(name, safe='')}"


def _explained(status: int, body: bytes) -> HyperError:
    try:
        said = str(json.loads(body)["message"])
    except (TypeError, ValueError, KeyError):
        said = f"HTTP {status}"
    kind = {401: PermissionDenied, 403: PermissionDenied, 404: NotFound}.get(status, Unavailable)
    return kind(f"the cluster says: {said}")


def _pod(found: dict[str, Any]) -> ClusterPod:
    meta, spec = found["metadata"], found["spec"]
    ending = bool(meta.get("deletionTimestamp"))
    return ClusterPod(
        name=meta["name"], node=spec.get("nodeName", ""), created_at=meta["creationTimestamp"],
        status="Terminating" if ending else found["status"].get("phase", "Unknown"),
        images=[c["image"] for c in spec["containers"]], runtime_class=spec.get("runtimeClassName", ""),
    )  # fmt: skip
