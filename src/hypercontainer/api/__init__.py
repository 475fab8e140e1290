# SPDX-License-Identifier: Apache-2.0
"""The native REST API: decode, call the engine, encode.

router      decorators for handlers, their context, the error table
openapi     the routes as an OpenAPI document
upgrade     the framed stream of attach and exec
containers images system   the routes
app         the aiohttp application
"""
