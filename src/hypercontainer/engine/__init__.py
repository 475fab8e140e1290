# SPDX-License-Identifier: Apache-2.0
"""The service layer: what pods and containers are and do.

registry    what exists: in memory and in the database
resolve     image and request become a process
streams     a process's output, to its log and to who is attached
logs        the json-file log
runtime     a pod's running VM
launch      what machine a pod is to have, and the one that it gets
bring_up    that machine with its ports, network and volumes; `down` is the reverse
build       containers in a running guest
reattach    machines to which a connection is opened again
containers  the life of a container
execs       further processes
archive     cp: tar streams in and out
monitor     top, stats
recover     finding running VMs again after a restart
events      what happened
"""
