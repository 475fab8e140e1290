# SPDX-License-Identifier: Apache-2.0
"""The daemon: configuration, wiring, signals."""
