# SPDX-License-Identifier: Apache-2.0
"""A cluster of Kubernetes whose namespaces are this daemon's projects: docs/caas.md.

namespaces  what there is in the cluster follows the projects
pods        what front ends ask about the Pods in them
"""
