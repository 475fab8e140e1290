# SPDX-License-Identifier: Apache-2.0
"""Figures beside those of a peer, in one run. `python -m bench`."""
