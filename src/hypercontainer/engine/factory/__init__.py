# SPDX-License-Identifier: Apache-2.0
"""The VM factory: templates of booted machines, clones of them, and clones that wait.

shapes      what machines have in common that can come from one template
parts       the disks that a template boots with
templates   one saved machine per shape, in memory and in the cache
clones      machines that go on from a template, and what they run once to be warm
pool        clones that wait for a container
factory     what the engine asks
"""
