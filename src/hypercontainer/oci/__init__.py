# SPDX-License-Identifier: Apache-2.0
"""`hyper-runtime`: the OCI runtime's command line (runtime-spec 1.0, with runc's options), in front of a hyperd.

A bundle's container becomes one of hyperd's whose root is the bundle's directory, in a pod of its own or in that of
the container whose namespaces it joins. What a bundle asks for is translated in `translation.py` and `mounts.py`; a
process of this host stands for each container and each exec (`stand_in.py`). It talks REST only, and imports little.
"""
