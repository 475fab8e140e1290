# SPDX-License-Identifier: Apache-2.0
"""Fuzzing of what reads bytes that nobody vouches for; docs/development.md says how to run it."""
