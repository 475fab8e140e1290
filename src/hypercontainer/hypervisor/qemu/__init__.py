# SPDX-License-Identifier: Apache-2.0
"""QEMU: `command` builds its command line, `machine` holds a process, `probe` tries KVM, `driver` joins them."""
