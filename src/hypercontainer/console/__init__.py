# SPDX-License-Identifier: Apache-2.0
"""The console: hyperd's pages for browsers, made by the server (docs/console.md)."""
