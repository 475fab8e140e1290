# SPDX-License-Identifier: Apache-2.0
"""Random verbs and random faults from a seed, against a model that says after each step what must be.

`python -m tests.chaos --seed N --minutes M`, or `make chaos`; a short one is tests/e2e/test_chaos.py.

host      a host of its own: a network namespace, a small disk, hyperd, which can be killed and started again
model     what there must be: containers with their states, their output, the files that they wrote
verbs     what people do, with what must come of it
faults    what happens to hyperd, QEMU, the guest's channel and the disk
check     compares the model with what hyperd says, and its records with the world
storm     the loop, and the table at the end
cycles    many starts and stops, and many pods at once, without any faults
"""
