# SPDX-License-Identifier: Apache-2.0
"""Who may have how much, and whose turn it is."""
