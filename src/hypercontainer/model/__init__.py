# SPDX-License-Identifier: Apache-2.0
"""What is said about the world: requests, records, names, units."""
