# SPDX-License-Identifier: Apache-2.0
"""Where the output of containers goes.

sink     the port, and the sink that keeps nothing
files    files of this host: json-file as Docker writes it, k8s-file as the kubelet reads it
sender   what sends messages over a socket
journald, syslog
choose   from --log-driver and --log-opt to sinks
fake     a sink that keeps what it gets in memory
"""
