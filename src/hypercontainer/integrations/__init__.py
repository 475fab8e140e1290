# SPDX-License-Identifier: Apache-2.0
"""What other makers' clients and frameworks expect of a sandbox, on our SDK.

e2b            a server that the package `e2b` drives: `hyperctl e2b serve`
langchain      where the shell of LangChain's agents runs
mcp            tools for language models: `hyperctl mcp`
openai_agents  where shell commands of OpenAI's agents run
smolagents     where agents of smolagents run their code
"""
