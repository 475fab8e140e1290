# SPDX-License-Identifier: Apache-2.0
"""The host's end of a guest: hyperstart's binary, its initramfs, and the session with it."""
