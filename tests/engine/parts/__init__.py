# SPDX-License-Identifier: Apache-2.0
"""Single parts of the engine: tables, formats, and the order of things that a whole daemon shows seldom."""
