# SPDX-License-Identifier: Apache-2.0
"""Deployments: docs/deployments.md says how.

deployments  the records, what is said of them, and which containers their addresses lead to
keeper       makes and ends replicas until there are as many, of the wanted kind, as there are to be
"""
