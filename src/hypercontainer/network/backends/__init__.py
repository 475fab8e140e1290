# SPDX-License-Identifier: Apache-2.0
"""The ways in which a pod's NICs reach something; `network/backend.py` says what each does."""
