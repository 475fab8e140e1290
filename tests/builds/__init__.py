# SPDX-License-Identifier: Apache-2.0
"""`make build-compare`: the same Dockerfiles by hyperctl build, and by the same dockerd outside of any virtual machine.

outside.py   that dockerd, in namespaces of its own
cases.py     Dockerfiles, and what they need
image.py     an image as it can be compared: its configuration, and the tree that its layers make
"""
