# SPDX-License-Identifier: Apache-2.0
"""Attached clients: what they say to a process and hear of it, whatever their connection is.

peer      the port: one attached client, as a front end has it
keys      the detach keys, taken out of what is typed
session   one client and one process, from the attachment to the end
fake      a client without a connection
"""
