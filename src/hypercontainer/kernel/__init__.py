# SPDX-License-Identifier: Apache-2.0
"""The guest's kernel: where it is found."""
