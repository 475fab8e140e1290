# SPDX-License-Identifier: Apache-2.0
"""What survives the daemon: one SQLite database, one writer."""
