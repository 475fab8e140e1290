# SPDX-License-Identifier: Apache-2.0
"""What other makers' clients and frameworks expect of a sandbox, on our SDK.

e2b         a server that the package `e2b` drives: `hyperctl e2b serve`
mcp         tools for language models: `hyperctl mcp`
smolagents  where agents of smolagents run their code
"""
