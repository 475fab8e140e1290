# SPDX-License-Identifier: Apache-2.0
"""Profiles of system calls that users bring: Docker's and OCI's JSON becomes a program for a guest's kernel."""

from .apart import Attempt, compiled
from .compile import Filter
from .profile import PROGRAM_MAX, TEXT_MAX

__all__ = ["PROGRAM_MAX", "TEXT_MAX", "Attempt", "Filter", "compiled"]
