# SPDX-License-Identifier: Apache-2.0
"""Egress by name: an image, what stands outside, and how a pod tries to get out."""

from pathlib import Path

attempts_in = Path(__file__).with_name("attempts.py")
