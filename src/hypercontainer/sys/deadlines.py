# SPDX-License-Identifier: Apache-2.0
"""How long anything waits for a guest or a hypervisor, and what happens then. All in seconds.

What a user sees: `ps`, `inspect`, `logs` and `version` ask no guest. `kill -s KILL`
and `rm -f` have ended the machine in 5 s, `stop` in its grace and 5 s more; `exec`,
`stats`, `top`, `cp` and `pause` fail with a sentence in 10 s. The daemon starts in
5 s whatever stands still, and ends in the longest grace and 10 s more.
"""

from __future__ import annotations

ANSWER = 8.0  # a guest's, to a short question: the verb fails and says so; the machine is left as it is
WORK = (
    60.0  # a guest's, to what may wait for disks or networks (mounts, set-up, a container's program): the start fails
)
SHUTDOWN = 10.0  # for a guest that lives to make its disks clean: the machine is killed
KILL = 4.0  # for a guest to end a container that is killed: its machine is killed
DEATH = (
    5.0  # for a process that has had SIGKILL: it is logged, and what it had is freed; the kernel ends it when it can
)
MONITOR = 8.0  # the hypervisor's, to one verb at its monitor: the verb fails and says so
PLUG = 20.0  # for a guest to find a device that was plugged in: the verb fails and says so
SILENCE = 10.0  # without a byte of a copy, until the guest is asked whether it lives
RECOVER = (
    3.0  # at the daemon's start, until it answers though a machine of the last daemon does not, which has more time
)
PULSE = 10.0  # between the questions by which hyperd feels whether a guest lives
SILENT = 30.0  # without an answer to any: `ps` says unresponsive, and the configuration may have it killed
STOP = 10.0  # more than the longest grace of a container, for the daemon's end: what is left of machines is killed
