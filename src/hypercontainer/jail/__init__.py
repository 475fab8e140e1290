# SPDX-License-Identifier: Apache-2.0
"""Starting programs that strangers may take over, with only what they are handed.

`jail` is the port, `hyperjail` does it by namespaces, `plain` where that is not
wanted or not possible, `fake` for tests; `seccomp` makes filters, `libraries`
tells which files a program loads, `report` looks from outside.
"""
