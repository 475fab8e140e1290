# SPDX-License-Identifier: Apache-2.0
"""The native REST API: decode, call the engine, encode.

identity    who asks, by socket, token or certificate
listener    accepting connections, within limits
bodies      reading what is sent, within limits
router      decorators for handlers, their context, the error table
openapi     the routes as an OpenAPI document
upgrade     the framed stream of attach and exec
containers archives files forwards images system tokens tenancy   the routes
app         the aiohttp application
"""
