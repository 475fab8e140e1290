# SPDX-License-Identifier: Apache-2.0
"""Kubernetes' side: the Container Runtime Interface over gRPC, for a kubelet and for `crictl`.

`api.proto`      what is said, compiled into `api.binpb`; `api` gives its messages
`server`         the socket; both names of the protocol from one set of methods
`faults`         errors as gRPC's codes
`records`        what of CRI's own is kept with pods and containers, and filters
`sandbox_request`, `container_request`, `security`   requests become the engine's specifications
`views`          records become CRI's answers
`streaming`      the HTTP server of exec, attach and port-forward
`runtime`, `sandboxes`, `containers`, `processes`, `stats`, `metrics`, `events`, `images`   the methods

grpcio is imported by the modules here and by no others: whoever does not serve CRI has nothing of it in memory.
"""
