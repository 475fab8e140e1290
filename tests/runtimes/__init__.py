# SPDX-License-Identifier: Apache-2.0
"""podman with runc and with hyper-runtime: `make oci-compare`."""
