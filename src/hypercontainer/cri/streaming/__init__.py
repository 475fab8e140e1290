# SPDX-License-Identifier: Apache-2.0
"""The streaming server: exec, attach and port-forward of kubelets, of their API servers, and of crictl.

`tickets`        what a URL stands for, once and for a while
`server`         HTTP on loopback; a URL's ticket becomes a session
`spdy_headers`, `spdy_frames`, `spdy`   SPDY/3.1, what of it Kubernetes speaks
`wires`          the bytes of a connection, taken from HTTP or in messages of a websocket
`status`         how a process ended, as Kubernetes says it
`spdy_command`, `channels`         exec and attach, over SPDY's streams and over a websocket's channels
`spdy_forward`, `port_channels`    ports, the same two ways
"""
