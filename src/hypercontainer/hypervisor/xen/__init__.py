# SPDX-License-Identifier: Apache-2.0
"""Xen by its tool xl: `document` describes a domain, `tools` asks, `machine` holds one, `driver` joins them."""
