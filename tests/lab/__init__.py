# SPDX-License-Identifier: Apache-2.0
"""A machine with KVM, anywhere: QEMU emulates AMD's virtualization, and the vm tier runs in that machine with KVM."""
