# SPDX-License-Identifier: Apache-2.0
"""A synchronous client of the REST API.

The command line's start-up time is its main cost, so this imports little:
no HTTP library, and no event loop.
"""
