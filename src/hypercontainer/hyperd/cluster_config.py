# SPDX-License-Identifier: Apache-2.0
"""The table `cluster` of the configuration: a cluster of Kubernetes whose namespaces are projects."""

from __future__ import annotations

import ssl
from typing import Annotated

import msgspec
from msgspec import Meta

from ..cluster.api_server import ApiServer
from ..cluster.nodes import NodeLedgers
from ..cluster.port import Ports
from ..errors import InvalidArgument


class ClusterConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Its API server, and how the hyperds of its nodes are asked what was used there."""

    kubeconfig: str = ""  # "": no API server; only ledgers of `nodes` are collected
    context: str = ""  # of that file; "" is its current one
    nodes: dict[str, str] = {}  # by names, ADDRESS:PORT; without any the cluster's that have a hyperd
    node_port: Annotated[int, Meta(ge=1, le=65535)] = 2377  # of those
    tlscacert: str = ""  # PEM: the CA of the nodes' certificates
    tlscert: str = ""  # PEM: what this hyperd shows them
    tlskey: str = ""

    def ports(self) -> Ports:
        """:raise InvalidArgument: something is missing, or a file is not what it should be.
        :raise Unavailable: there is no client for Kubernetes, or the kubeconfig leads nowhere.
        """
        server = ApiServer(self.kubeconfig, self.context) if self.kubeconfig else None
        if not server and not self.nodes:
            raise InvalidArgument("cluster: neither an API server nor nodes", hint="give kubeconfig, or nodes")
        return Ports(server, NodeLedgers(self._tls(), self.nodes, server, self.node_port))

    def _tls(self) -> ssl.SSLContext:
        if not (self.tlscacert and self.tlscert and self.tlskey):
            raise InvalidArgument("cluster: nodes are asked with certificates on both sides",
                                  hint="give tlscacert, tlscert and tlskey")  # fmt: skip
        try:
            made = ssl.create_default_context(cafile=self.tlscacert)
            made.minimum_version = ssl.TLSVersion.TLSv1_3
            made.load_cert_chain(self.tlscert, self.tlskey)
        except OSError as error:  # ssl.SSLError is one
            files = ", ".join((self.tlscacert, self.tlscert, self.tlskey))
            raise InvalidArgument(f"cluster: TLS cannot be used with {files}: {error}",
                                  hint="they must be PEM files") from None  # fmt: skip
        return made
