# SPDX-License-Identifier: Apache-2.0
"""podman's own system tests that need only a runtime, with runc and with hyper-runtime: `make podman-system`."""
