# SPDX-License-Identifier: Apache-2.0
"""Pods that are saved while they run, and pods that go on from that."""
