# SPDX-License-Identifier: Apache-2.0
"""A cluster of Kubernetes on this machine, whose nodes run their pods by hyperd: `make test-kubernetes`."""
