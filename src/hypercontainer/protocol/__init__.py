# SPDX-License-Identifier: Apache-2.0
"""The guest protocol, sans-I/O: the Python twin of hyperstart/include/hyper_protocol.h.

constants   numbers of the contract
wire        attributes and frames <-> bytes
streams     one direction of a process's stdin, stdout or stderr
messages    typed requests and replies
"""
