# SPDX-License-Identifier: Apache-2.0
"""runtime-tools' validation of OCI runtimes, with runc and with hyper-runtime: `make oci-validate`."""
