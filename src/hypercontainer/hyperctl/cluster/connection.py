# SPDX-License-Identifier: Apache-2.0
"""The API server of a context's cluster, by Kubernetes' own client, and its answers as sentences of ours."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from typing import Any

import click

from ...errors import Conflict, HyperError, InvalidArgument, NotFound, PermissionDenied, Unauthorized, Unavailable
from ...model.cluster import ORGANISATION, PROJECT_NAME, RUNTIME_CLASS_OF, namespace_of
from ..contexts import RUNTIME_CLASS

_KINDS = {400: InvalidArgument, 401: Unauthorized, 403: PermissionDenied, 404: NotFound, 409: Conflict,
          422: InvalidArgument}  # fmt: skip
TIMEOUT = 60.0  # seconds for an answer


class Cluster:
    """A namespace of it."""

    def __init__(self, settings: dict[str, str]) -> None:
        """:raise Unavailable: the client is not installed, or there is no cluster to be reached."""
        try:
            import urllib3
            from kubernetes import client, config
        except ImportError:
            raise Unavailable(
                "Kubernetes' client for Python is not installed", hint="pip install 'hypercontainer[kubernetes]'"
            ) from None
        named = {"config_file": settings.get("kubeconfig") or None, "context": settings.get("context") or None}
        # Whoever wrote insecure-skip-tls-verify into the file knows it; kubectl does not go on about it either.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        found = client.Configuration()
        try:
            config.load_kube_config(client_configuration=found, **named)
            self.namespace = settings.get("namespace") or _namespace(named)
        except (config.ConfigException, OSError) as error:
            where = settings.get("kubeconfig") or os.environ.get("KUBECONFIG") or "~/.kube/config"
            raise Unavailable(f"{where} leads to no cluster: {error}", hint="see `hyperctl context inspect`") from None
        self.runtime_class = settings.get("runtimeClass", RUNTIME_CLASS)
        found.retries = False
        self._configuration = found
        if project := os.environ.get("HYPER_PROJECT"):
            self._enter(project)

    def _enter(self, project: str) -> None:
        """The namespace of a project that a control hyperd has there.

        :raise NotFound: there is none. :raise Conflict: several organisations have one of that name.
        """
        with explained(f"project {project}"):
            if re.fullmatch("[0-9a-f]{16}", project):
                found = [self.pods.read_namespace(namespace_of(project), _request_timeout=TIMEOUT)]
            else:
                above, _, name = project.rpartition("/")
                labels = {PROJECT_NAME: name, **({ORGANISATION: above} if above else {})}
                asked = ",".join(f"{key}={value}" for key, value in labels.items())
                found = self._named(asked)
        if len(found) > 1:
            raise Conflict(f"several organisations have a project {project}", hint="write ORGANISATION/NAME")
        if not found:
            raise NotFound(f"no project {project} is in the cluster", hint="see `hyperctl project ls`")
        self.namespace = str(found[0].metadata.name)
        self.runtime_class = found[0].metadata.labels.get(RUNTIME_CLASS_OF, self.runtime_class)

    def _named(self, labels: str) -> list[Any]:
        from kubernetes.client.exceptions import ApiException

        try:
            return list(self.pods.list_namespace(label_selector=labels, _request_timeout=TIMEOUT).items)
        except ApiException as error:
            if error.status == 403:
                raise PermissionDenied(
                    "you may not look for projects by name in this cluster",
                    hint="give the project's id, which `hyperctl project inspect` tells",
                ) from None
            raise

    @property
    def pods(self) -> Any:
        """A new connection: a stream takes its own for itself."""
        from kubernetes import client

        return client.CoreV1Api(client.ApiClient(self._configuration))

    def pod(self, name: str) -> Any:
        """:raise NotFound: there is none."""
        with explained(f"pod {name}"):
            return self.pods.read_namespaced_pod(name, self.namespace, _request_timeout=TIMEOUT)


def _namespace(named: dict[str, str | None]) -> str:
    from kubernetes import config

    contexts, active = config.list_kube_config_contexts(named["config_file"])
    chosen = next((c for c in contexts if c["name"] == named["context"]), active)
    return str(chosen["context"].get("namespace") or "default")


def cluster() -> Cluster:
    """That of the context which this command is for."""
    return Cluster(click.get_current_context().find_root().obj)


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Raise what goes wrong with the API server as an error of ours.

    :raise HyperError: of the kind that the status stands for.
    """
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError
    from websocket import WebSocketException

    try:
        yield
    except ApiException as error:
        raise _kind(error)(f"{what}: {_message(error)}") from None
    except (HTTPError, WebSocketException) as error:
        raise Unavailable(
            f"the cluster does not answer: {getattr(error, 'reason', None) or error}",
            hint="see `hyperctl context inspect`, or use another context",
        ) from None


def _kind(error: Any) -> type[HyperError]:
    return _KINDS.get(int(error.status or 0), Unavailable)


def _message(error: Any) -> str:
    """What the API server says; a handshake that failed has it in its reason."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason or error)
