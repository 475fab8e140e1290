# SPDX-License-Identifier: Apache-2.0
"""HyperContainer: any container image, run as a virtual machine that feels like a container.

A map of the package, lowest layer first (imports go downwards only):

    errors, model          what things are called and how they fail
    sys                    small system helpers: files, child processes
    protocol               the guest's wire format, sans-I/O
    images hypervisor guest network volumes state kernel cluster
                           one concern each, siblings that never import each other
    engine                 pods and containers: the only layer that combines the above
    serving                what front ends over HTTP share
    api, docker, cri       REST, Docker's Engine API, and Kubernetes' CRI, in front of the engine
    client, hyperctl       the command line; talks REST only
    sdk                    sandboxes for Python programs; the same
    testing                fixtures for pytest, of the SDK's
    oci                    the OCI runtime's command line; the same
    hyperd                 the daemon: configuration, wiring, signals
"""

__version__ = "0.1.0"
API_VERSION = "v1"
