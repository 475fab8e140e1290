# SPDX-License-Identifier: Apache-2.0
"""Virtual machines: the driver contract (`driver`), QEMU (`qemu`), a double for tests (`fake`)."""
