# SPDX-License-Identifier: Apache-2.0
"""The whole state as one file, and a state made of such a file."""
