# SPDX-License-Identifier: Apache-2.0
"""The command line. It talks REST only.

main       the group of verbs; each verb's module is imported when it is used
context    what every verb has: client, output, errors
options    the flags that run and create share
stream     attached terminals and pipes
output     tables, templates, progress
"""
