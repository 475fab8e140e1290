# SPDX-License-Identifier: Apache-2.0
"""Egress by name: what a pod sends is redirected to a gate, whose proxy reads which host is meant.

gate        listens on a network's gateway, knows whose connection it is, starts the pod's proxy, and opens the
            connections that this asks for, if the pod's policy has their host
proxy       the pod's process of its own, as hyperd sees it: what is handed to it and what it asks for
worker      that process. It alone reads what the pod sends, has no network and no file, and is handed connections
resolver    asks for addresses itself, whatever the pod was told; `upstream` says which of them are out of bounds
"""
