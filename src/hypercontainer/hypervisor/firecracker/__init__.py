# SPDX-License-Identifier: Apache-2.0
"""Firecracker: `document` describes a machine, `api` asks one, `machine` holds its process, `driver` joins them."""
