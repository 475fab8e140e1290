# SPDX-License-Identifier: Apache-2.0
"""The service layer: what pods and containers are and do.

registry    what exists: in memory and in the database
resolve     image and request become a process
streams     a process's output, to its log and to who is attached
logs        the json-file log
runtime     a pod's running VM
provision   from a pod to its running VM; teardown is its reverse
containers  the life of a container
execs       further processes
archive     cp: tar streams in and out
monitor     top, stats
recover     finding running VMs again after a restart
events      what happened
"""
