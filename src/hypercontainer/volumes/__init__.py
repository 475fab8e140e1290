# SPDX-License-Identifier: Apache-2.0
"""Disks that containers write to."""
