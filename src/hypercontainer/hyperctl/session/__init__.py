# SPDX-License-Identifier: Apache-2.0
"""BuildKit's session: during a build the builder asks its client, over a connection that the client opened.

grpc.py        calls that come over HTTP/2 on a socket
secrets.py     answers: secrets, SSH agents, credentials of registries
outputs.py     takes what a build gives that is no image: a tree, or a tar
connection.py  the connection, through hyperd

The services are those of https://github.com/moby/buildkit/tree/master/session, as of version 0.13.
"""
