# SPDX-License-Identifier: Apache-2.0
"""podman's tests of Docker's API against our socket: `make conformance`."""
