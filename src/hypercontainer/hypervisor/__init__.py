# SPDX-License-Identifier: Apache-2.0
"""Virtual machines: the driver contract (`driver`) and QEMU (`qemu`)."""
