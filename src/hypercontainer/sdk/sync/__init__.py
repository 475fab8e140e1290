# SPDX-License-Identifier: Apache-2.0
"""The SDK for programs without an event loop: made of the asynchronous classes by scripts/make_sync_sdk.py."""
