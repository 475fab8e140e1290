# SPDX-License-Identifier: Apache-2.0
"""The cluster of Kubernetes of a control daemon: its API server, and the hyperds of its nodes.

port        what the engine asks for
manifests   what a project's namespace consists of
api_server  the API server, by Kubernetes' own client
nodes       the ledgers of nodes, over REST with TLS
fake        both, as objects
"""
